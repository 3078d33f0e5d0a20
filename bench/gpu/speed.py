"""Images a second by way and batch size, measured in turns on one card, beside the card's limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.gpu import ceilings, floor
from bench.gpu.record import Record, rate
from bench.gpu.setup import Setup
from bench.gpu.ways import WAYS, Images, Way
from bench.timing import in_turns

ROUNDS, BLOCK_S = 5, 0.05


def measure(
    setup: Setup, record: Record, precisions: Sequence[str], sizes: Sequence[int], ways: Sequence[str], seconds: float
) -> None:
    """Measure ``ways``. After ``seconds``, no further measurement starts."""
    end = time.perf_counter() + seconds
    for precision in precisions:
        record.attempt(partial(_bounds, setup, record, precision), precision, "at_most_per_s")
        images, built = setup.images(max(sizes)), dict[str, Way]()
        for name in ways:
            if time.perf_counter() < end:
                record.attempt(partial(_build, built, name, setup, precision, images), precision, name)
        for size in sizes:
            if time.perf_counter() > end:
                record.put("no time left", precision, f"batch_{size}")
                continue
            work = dict[str, Callable[[], object]]()
            for name, way in built.items():
                record.attempt(partial(_try_out, work, name, way, size), precision, f"{name}, batch {size}")
            for name, taken in in_turns(work, ROUNDS, block_s=BLOCK_S).items():
                record.put(rate(size * built[name].at_a_time, taken), precision, f"batch_{size}", name)


def _build(built: dict[str, Way], name: str, setup: Setup, precision: str, images: Images) -> None:
    built[name] = WAYS[name](setup, precision, images)


def _try_out(work: dict[str, Callable[[], object]], name: str, way: Way, size: int) -> None:
    """Run a batch once, then add its function to ``work``."""
    run = way.runs(size)
    run()
    work[name] = run


def _bounds(setup: Setup, record: Record, precision: str) -> None:
    """Record the card's limits, measured now, and the images/s that these limits allow."""
    tflops, tb_per_s = ceilings.tflops(precision, setup.device), ceilings.copy_tb_per_s(setup.device)
    record.put({"tflops": tflops, "tb_per_s": tb_per_s}, precision, "ceilings")
    record.put(floor.bounds(Path(setup.file(precision)), precision, tflops, tb_per_s), precision, "at_most_per_s")
