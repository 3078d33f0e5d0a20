"""The machine's limits without HTTP: the session alone, decoding alone, and both side by side."""

from __future__ import annotations

import functools
import itertools
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bench.in_process import InProcess, as_served, every_way
from bench.plots import BarChart
from bench.report import Report
from bench.repository import Model
from bench.timing import in_turns
from service.sessions import Session
from service.settings import Settings

log = logging.getLogger("bench")

FLOAT = "fp32 on cpu"  # the way with which the others are compared
ROUNDS = 5
OFFLINE_S = 8.0  # seconds of one measurement of decoding and sessions together


def measure(model: Model, settings: Settings, *, quick: bool = False) -> Report:
    """Measure one model. Raises StartupError or InvalidManifest if the model can't be loaded."""
    rounds, seconds = (1, 0.1) if quick else (ROUNDS, OFFLINE_S)
    served = as_served(model, settings)
    ways = every_way(model, settings, served)
    log.info("%s: measuring %s", model.name, ", ".join(ways))
    rates = _session_rates(ways, settings.batch_sizes, rounds)
    decoding = _decode_ms(served, rounds)
    figures: dict[str, object] = {
        "version": model.manifest.version,
        "served": str(served),
        "session_images_per_s_by_batch": rates,
        "session_over_float": _over_float(rates),
        "decode_ms_of_a_core": decoding,
        "fast_over_exact": decoding["fast"] / decoding["exact"],
        "decode_and_infer_images_per_s": {name: offline_rate(way, seconds) for name, way in ways.items()},
    }
    bars = {f"{way}, batch {size}": rate for way, by_size in rates.items() for size, rate in sorted(by_size.items())}
    charts = [BarChart("session alone, images/s", bars), BarChart("decoding an image, ms of a core", decoding)]
    return Report(model.name, figures, plots=charts)


def offline_rate(way: InProcess, seconds: float = OFFLINE_S) -> float:
    """Return images/s if threads decode each session's next full batch while one batch runs: any server's limit."""
    size, endless = way.settings.max_batch_size, itertools.cycle(way.model.photos)
    feeds = [_Feed(session, way.empty(size), way.empty(size)) for session in way.sessions]

    def decoding(row: NDArray[np.uint8]) -> Future[None]:
        return decoders.submit(way.decode, next(endless).data, row)

    def keep_busy(feed: _Feed) -> None:
        ready = [decoding(row) for row in feed.full]
        while time.perf_counter() - start < seconds:
            for future in ready:
                future.result()
            ready = [decoding(row) for row in feed.empty]
            feed.run()

    with ThreadPoolExecutor(way.settings.decoders) as decoders, ThreadPoolExecutor(len(feeds)) as runners:
        start = time.perf_counter()
        list(runners.map(keep_busy, feeds))
        return sum(feed.done for feed in feeds) / (time.perf_counter() - start)


class _Feed:
    """A session and two batches: ``full`` runs while ``empty`` is filled, and the two change places."""

    def __init__(self, session: Session, full: NDArray[np.uint8], empty: NDArray[np.uint8]) -> None:
        self.session, self.full, self.empty = session, full, empty
        self.done = 0

    def run(self) -> None:
        self.session.run(self.full)
        self.full, self.empty, self.done = self.empty, self.full, self.done + len(self.full)


def _session_rates(ways: Mapping[str, InProcess], sizes: Sequence[int], rounds: int) -> dict[str, dict[int, float]]:
    """Return images/s by way and batch size."""
    work = {
        (name, size): functools.partial(way.session.run, np.zeros_like(way.empty(size)))
        for name, way in ways.items()
        for size in sizes
    }
    seconds = in_turns(work, rounds)
    return {name: {size: size / statistics.median(seconds[name, size]) for size in sizes} for name in ways}


def _over_float(rates: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Return each way's rate over the rate of fp32 on ONNX Runtime's CPU provider, at the largest batch.

    The result is empty if the settings ask for another device or precision, because fp32 is then not measured.
    """
    whole = rates.get(FLOAT)
    return {way: by_size[max(by_size)] / whole[max(whole)] for way, by_size in rates.items()} if whole else {}


def _decode_ms(way: InProcess, rounds: int) -> dict[str, float]:
    """Return the milliseconds of one core that decoding an image takes, exactly and fast."""
    row = way.empty(1)[0]

    def decode_all(*, fast: bool) -> None:
        for photo in way.model.photos:
            way.decode(photo.data, row, fast=fast)

    work = {"exact": lambda: decode_all(fast=False), "fast": lambda: decode_all(fast=True)}
    # The clock counts the thread's own processor time, so other work on the machine doesn't count.
    seconds = in_turns(work, rounds, clock=time.thread_time)
    return {how: statistics.median(taken) * 1e3 / len(way.model.photos) for how, taken in seconds.items()}
