"""What a machine can do at most, without HTTP: sessions alone, decoding alone, and both side by side."""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.budget import Budget
from service.errors import DeviceUnavailable
from service.inference.devices.providers import Device
from service.inference.image import decode
from service.inference.manifest import Manifest, read_manifest
from service.inference.placement import Placement, candidates, load, place
from service.inference.session import Session
from service.settings import Settings

log = logging.getLogger("inferception")

K = TypeVar("K", bound=Hashable)

FLOAT = "fp32 on cpu"  # what all else is compared with
ROUNDS = 5
OFFLINE_S = 8.0


@dataclass(frozen=True)
class Limits:
    """Figures of one model: images a second, and seconds of one core for decoding one image.

    A way to run it is named as ``fp32 on cpu``; ``served`` is the one that the server takes.
    """

    model: str
    version: int
    served: str
    session_per_s: dict[str, dict[int, float]]  # by way and batch size
    decode_s: dict[str, float]  # exact and fast
    offline_per_s: dict[str, float]  # by way: decoding beside the session, at the largest batch

    @property
    def session_over_float(self) -> dict[str, float]:
        """Each way's rate over that of ONNX Runtime's own fp32, at the largest batch; empty where nothing runs that."""
        whole = self.session_per_s.get(FLOAT)
        if whole is None:  # another device or precision was asked for
            return {}
        return {way: rates[max(rates)] / whole[max(whole)] for way, rates in self.session_per_s.items()}

    @property
    def fast_over_exact(self) -> float:
        """The time of decoding fast over that of decoding exactly."""
        return self.decode_s["fast"] / self.decode_s["exact"]


def measure(folder: Path, settings: Settings, photos: Sequence[bytes]) -> Limits:
    """Measure the model in ``folder`` (``<name>/<version>``) with ``photos``, encoded images.

    Raises StartupError or InvalidManifest for a model that can't be loaded.
    """
    manifest = read_manifest(folder)
    served = place(folder, manifest, settings)
    # A CPU has several ways to run a model, and all are worth a look.
    devices: list[Device] = ["cpu", "openvino"] if settings.device == "auto" and not served.on_gpu else [served.device]
    ways: dict[str, Placement] = {}
    for candidate in (c for device in devices for c in candidates(manifest, settings.precision, device)):
        try:
            ways[str(candidate)] = load(folder, manifest, settings, candidate, "measured")
        except DeviceUnavailable as error:
            log.info("not measuring %s: %s", candidate, error)
    log.info("measuring %s in %s", manifest.name, ", ".join(ways))
    session_sets = {way: placement.sessions for way, placement in ways.items()}
    session_sets |= {f"{way} in {len(p.streams)} streams": p.streams for way, p in ways.items() if p.streams}
    rates: dict[str, dict[int, float]] = {way: {} for way in session_sets}
    with ThreadPoolExecutor(max(map(len, session_sets.values()))) as pool:
        work = {
            (way, size): _batches(sessions, size, pool)
            for way, sessions in session_sets.items()
            for size in settings.batch_sizes
        }
        for (way, size), seconds in alternated(work, ROUNDS).items():
            rates[way][size] = size * len(session_sets[way]) / seconds
    return Limits(
        manifest.name,
        manifest.version,
        str(served),
        rates,
        _decode_seconds(manifest, photos, settings),
        {way: offline_rate(placement, manifest, photos, settings) for way, placement in ways.items()},
    )


def alternated(
    work: Mapping[K, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[K, float]:
    """Return the median seconds that each work takes by ``clock``, in turns, after a turn to warm up."""
    seconds: dict[K, list[float]] = {key: [] for key in work}
    for _ in range(rounds + 1):
        for key, run in work.items():
            start = clock()
            run()
            seconds[key].append(clock() - start)
    return {key: statistics.median(taken[1:]) for key, taken in seconds.items()}


def _batches(sessions: Sequence[Session], size: int, pool: Executor) -> Callable[[], object]:
    """Return what runs a batch on each session, all at a time."""
    images = np.zeros((size, sessions[0].height, sessions[0].width, 3), np.uint8)
    return lambda: list(pool.map(lambda session: session.run(images), sessions))


def _decode_seconds(manifest: Manifest, photos: Sequence[bytes], settings: Settings) -> dict[str, float]:
    out = np.empty((manifest.input.height, manifest.input.width, 3), np.uint8)
    budget = Budget(settings.max_pixels_in_flight)

    def decode_all(fast: bool) -> None:
        for photo in photos:
            decode(photo, out, manifest.preprocessing, settings.max_pixels, budget, fast)

    # A thread's own time: what else the machine does meanwhile doesn't count.
    ways = {"exact": lambda: decode_all(False), "fast": lambda: decode_all(True)}
    return {how: seconds / len(photos) for how, seconds in alternated(ways, ROUNDS, clock=time.thread_time).items()}


def offline_rate(placement: Placement, manifest: Manifest, photos: Sequence[bytes], settings: Settings) -> float:
    """Return images/s when each device or stream decodes its next full batch while one runs: any server's limit."""
    size, fast = settings.max_batch_size, settings.decode == "fast"
    budget, endless = Budget(settings.max_pixels_in_flight), itertools.cycle(photos)
    streams = [_Stream(session, size) for session in placement.streams or placement.sessions]

    def decoding(row: NDArray[np.uint8]) -> Future[None]:
        photo = next(endless)
        return decoders.submit(decode, photo, row, manifest.preprocessing, settings.max_pixels, budget, fast)

    def keep_busy(stream: _Stream) -> None:
        ready = [decoding(row) for row in stream.buffers[0]]
        while time.perf_counter() - start < OFFLINE_S:
            for future in ready:
                future.result()
            full, empty = stream.buffers
            ready = [decoding(row) for row in empty]
            stream.session.run(full)
            stream.buffers, stream.done = (empty, full), stream.done + size

    with ThreadPoolExecutor(settings.decode_threads) as decoders, ThreadPoolExecutor(len(streams)) as runners:
        start = time.perf_counter()
        list(runners.map(keep_busy, streams))
        return sum(stream.done for stream in streams) / (time.perf_counter() - start)


class _Stream:
    """Batches one after another: a buffer that runs, and one that is being filled."""

    def __init__(self, session: Session, size: int) -> None:
        self.session = session
        self.done = 0
        first, second = np.empty((2, size, session.height, session.width, 3), np.uint8)
        self.buffers = (first, second)
