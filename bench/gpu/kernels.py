"""The time of a batch on the device, kernel by kernel. Torch's profiler sees onnxruntime's kernels too."""

from __future__ import annotations

import collections
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from bench.gpu.record import Record
from bench.gpu.setup import Setup
from bench.gpu.ways import WAYS, Images

SHOWN = 60


def measure(setup: Setup, record: Record, precision: str, sizes: Sequence[int]) -> None:
    """Profile the service's session and eager torch, in each batch size."""
    images = setup.images(max(sizes))
    for name in ("service", "torch"):
        record.attempt(partial(_profile_way, setup, record, name, precision, images, sizes), name)


def _profile_way(setup: Setup, record: Record, name: str, precision: str, images: Images, sizes: Sequence[int]) -> None:
    way = WAYS[name](setup, precision, images)
    for size in sizes:
        record.put(_profiled(setup, way.runs(size)), f"{name}_batch_{size}")


def _profiled(setup: Setup, run: Callable[[], object]) -> dict[str, object]:
    """Return the milliseconds of a batch, in all and by kernel, in descending order."""
    batches = 20 if setup.on_gpu else 2
    activity = ProfilerActivity.CUDA if setup.on_gpu else ProfilerActivity.CPU
    kinds = {"kernel", "gpu_memcpy", "gpu_memset"} if setup.on_gpu else {"cpu_op"}
    for _ in range(5 if setup.on_gpu else 1):
        run()
    start = time.perf_counter()
    with profile(activities=[activity], acc_events=True) as seen:
        for _ in range(batches):
            run()
    wall_ms = (time.perf_counter() - start) * 1e3 / batches
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    busy, calls = collections.defaultdict[str, float](float), collections.Counter[str]()
    for event in events:
        if event.get("cat") in kinds:
            busy[event["name"]] += event["dur"] / 1e3 / batches
            calls[event["name"]] += 1
    longest = sorted(busy, key=busy.__getitem__, reverse=True)[:SHOWN]
    return {
        "wall_ms": wall_ms,
        "busy_ms": sum(busy.values()),
        "launches": calls.total() / batches,
        "kernels": {name[:100]: {"ms": busy[name], "calls": calls[name] / batches} for name in longest},
    }
