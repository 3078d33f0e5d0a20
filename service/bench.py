"""``python -m service bench``: what this machine can do at most, without HTTP.

All that is compared takes turns in one run, so that a busy machine slows it alike: only ratios mean much.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.budget import Budget
from service.errors import DeviceUnavailable
from service.image import decode
from service.manifest import Manifest, checked_file, read_manifest
from service.placement import Placement, candidates, load, place
from service.providers import Device
from service.registry import version_folders
from service.session import Session
from service.settings import Settings

log = logging.getLogger("inferception")

K = TypeVar("K", bound=Hashable)

ROUNDS = 5
OFFLINE_S = 8.0


@dataclass(frozen=True)
class ModelBench:
    """Figures of one model: images a second, and seconds of one core for decoding one image.

    A way to run it is named as ``fp32 on cpu``; ``served`` is the one that the server takes.
    """

    model: str
    version: int
    served: str
    session_per_s: dict[str, dict[int, float]]  # by way and batch size
    decode_s: dict[str, float]  # exact and fast
    offline_per_s: dict[str, float]  # by way: decoding beside the session, at the largest batch


def bench(settings: Settings, photos: Sequence[bytes] = ()) -> list[ModelBench]:
    """Measure every model of the repository with ``photos``, encoded images, or else with its golden samples.

    Raises StartupError or InvalidManifest for a model that can't be loaded.
    """
    return [_bench(folder, settings, photos) for folder in sorted(version_folders(settings.model_repository))]


def table(models: Sequence[ModelBench]) -> str:
    """Return the figures as text."""
    lines = []
    for model in models:
        lines.append(f"{model.model} version {model.version}, served in {model.served}")
        for way, rates in model.session_per_s.items():
            by_batch = ", ".join(f"{rate:.1f} in batches of {batch}" for batch, rate in sorted(rates.items()))
            lines.append(f"  {way}: images/s by the session alone: {by_batch}")
            lines.append(f"  {way}: images/s with decoding beside: {model.offline_per_s[way]:.1f}")
        lines += [f"  decoding an image, {how}: {s * 1e3:.1f} ms of a core" for how, s in model.decode_s.items()]
    return "\n".join(lines)


def as_json(models: Sequence[ModelBench]) -> list[dict[str, object]]:
    """Return the figures as JSON has them."""
    return [asdict(model) for model in models]


def _bench(folder: Path, settings: Settings, photos: Sequence[bytes]) -> ModelBench:
    manifest = read_manifest(folder)
    photos = photos or [checked_file(folder, sample).read_bytes() for sample in manifest.golden]
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
    at_a_time = len(served.sessions)
    rates: dict[str, dict[int, float]] = {way: {} for way in ways}
    with ThreadPoolExecutor(at_a_time) as pool:
        work = {
            (way, size): _batches(placement, size, pool)
            for way, placement in ways.items()
            for size in settings.batch_sizes
        }
        for (way, size), seconds in alternated(work).items():
            rates[way][size] = size * at_a_time / seconds
    return ModelBench(
        manifest.name,
        manifest.version,
        str(served),
        rates,
        _decode_seconds(manifest, photos, settings),
        {way: offline_rate(placement, manifest, photos, settings) for way, placement in ways.items()},
    )


def alternated(
    work: Mapping[K, Callable[[], object]], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> dict[K, float]:
    """Return the median seconds that each work takes by ``clock``, in turns, after a turn to warm up."""
    seconds: dict[K, list[float]] = {key: [] for key in work}
    for _ in range(rounds + 1):
        for key, run in work.items():
            start = clock()
            run()
            seconds[key].append(clock() - start)
    return {key: statistics.median(taken[1:]) for key, taken in seconds.items()}


def _batches(placement: Placement, size: int, pool: Executor) -> Callable[[], object]:
    """Return what runs a batch on each device or stream, all at a time."""
    session = placement.sessions[0]
    images = np.zeros((size, session.height, session.width, 3), np.uint8)
    return lambda: list(pool.map(lambda session: session.run(images), placement.sessions))


def _decode_seconds(manifest: Manifest, photos: Sequence[bytes], settings: Settings) -> dict[str, float]:
    out = np.empty((manifest.input.height, manifest.input.width, 3), np.uint8)
    budget = Budget(settings.max_pixels_in_flight)

    def decode_all(fast: bool) -> None:
        for photo in photos:
            decode(photo, out, manifest.preprocessing, settings.max_pixels, budget, fast)

    # A thread's own time: what else the machine does meanwhile doesn't count.
    ways = {"exact": lambda: decode_all(False), "fast": lambda: decode_all(True)}
    return {how: seconds / len(photos) for how, seconds in alternated(ways, clock=time.thread_time).items()}


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
