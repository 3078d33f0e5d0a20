"""Check that a GPU runs every node, and that every class is right in each batch size, with and without CUDA graphs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.gpu.record import Record
from bench.gpu.setup import Setup
from bench.in_process import InProcess
from bench.report import Bar
from bench.repository import only

TOLERANCE = 0.02  # the largest allowed difference of a probability
RUNS = 4  # of each batch; the first run chooses kernels


def measure(setup: Setup, record: Record) -> None:
    """Try every variant for GPUs. The report passes if all variants and ``python -m service check`` work."""
    pixels, found = setup.golden(), Counter[str]()
    for precision in (v.precision for v in setup.model.manifest.variants if v.precision in ("fp32", setup.precision)):
        for graphs in (False, True) if setup.on_gpu else (False,):
            name = f"{precision}_with_cuda_graphs" if graphs else precision
            tried = record.attempt(partial(_try, setup, record, pixels, name, precision, found, graphs=graphs), name)
            found["failed"] += not tried
    record.report.bars = [
        Bar("ways that failed", found["failed"], 0),
        Bar(f"nodes elsewhere than on {setup.device}", found["elsewhere"], 0),
        Bar("answers with a wrong class or probability", found["wrong"], 0),
        Bar("exit code of python -m service check", _check(setup, record), 0),
    ]


def _try(
    setup: Setup,
    record: Record,
    pixels: NDArray[np.uint8],
    name: str,
    precision: str,
    found: Counter[str],
    *,
    graphs: bool,
) -> None:
    """Run the golden samples in every batch size. Count nodes on other devices and wrong answers in ``found``."""
    placed = setup.placed(precision, 32 if setup.on_gpu else 2, graphs=graphs)
    nodes = placed.placement.nodes
    record.put(nodes, name, "nodes")
    wanted = "CUDAExecutionProvider" if setup.on_gpu else "CPUExecutionProvider"
    found["elsewhere"] += sum(count for provider, count in nodes.items() if provider != wanted)
    golden = setup.model.manifest.golden
    for size in placed.settings.batch_sizes:
        images = np.resize(pixels, (size, *pixels.shape[1:]))
        setup.pin(images)
        answers, seconds = _timed(placed, images)
        expected = [golden[i % len(golden)].top_k[0] for i in range(size)]
        same = answers.argmax(1) == [best["index"] for best in expected]
        off = np.abs(
            answers[np.arange(size), [best["index"] for best in expected]] - [b["probability"] for b in expected]
        )
        found["wrong"] += int((~same | (off > TOLERANCE)).sum())
        figures = {"right": int(same.sum()), "off_by": float(off.max()), "first_ms": seconds[0] * 1e3}
        record.put(figures | {"then_ms": min(seconds[1:]) * 1e3}, name, "batches", size)


def _timed(placed: InProcess, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[float]]:
    """Return the answers of the last run, and the seconds of each run."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        answers = placed.session.run(images)
        seconds.append(time.perf_counter() - start)
    return answers, seconds


def _check(setup: Setup, record: Record) -> int:
    with only(setup.model) as repository:
        command = [sys.executable, "-m", "service", "check"]
        chosen = {"DEVICE": setup.device, "MODEL_REPOSITORY": str(repository), "DEFAULT_MODEL": setup.model.name}
        environment = os.environ | {f"INFERCEPTION_{name}": value for name, value in chosen.items()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    record.put((done.stdout + done.stderr)[-3000:].strip(), "service_check")
    return done.returncode
