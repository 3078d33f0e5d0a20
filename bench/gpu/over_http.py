"""The service over HTTP in several settings: photos a second and latencies, with several client processes.

One Python client process manages some thousand photos a second at most, fewer than a GPU. So several processes send
requests, but few enough to leave the server its cores. Each process reports how busy it was, because a busy client
measures its own speed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import server
from bench.gpu.record import Record
from bench.gpu.setup import Setup
from bench.limits import offline_rate
from bench.repository import Photo, only
from bench.server import Server
from bench.timing import percentile
from bench.traffic import closed_loop
from bench.workload import Outcome, Workload
from service.settings import available_cpus

SECONDS = 5.0
GPU_SETTINGS: Sequence[dict[str, object]] = (
    {"max_batch_size": 32},
    {"max_batch_size": 32, "cuda_graphs": True},
    {"max_batch_size": 64, "cuda_graphs": True},
    {"max_batch_size": 8, "cuda_graphs": True},
    {"max_batch_size": 32, "cuda_graphs": True, "decoders": max(1, available_cpus() // 2)},
)
REHEARSED: Sequence[dict[str, object]] = ({"max_batch_size": 2},)


class Asked(NamedTuple):
    """The outcomes of one client process, and the share of the time in which the process had a CPU."""

    outcomes: list[Outcome]
    seconds: float
    busy: float


def measure(setup: Setup, record: Record, seconds: float) -> None:
    """Measure each of ``GPU_SETTINGS``, or ``REHEARSED`` in a rehearsal. After ``seconds``, no measurement starts."""
    end = time.perf_counter() + seconds
    clients = (1, 16, 64, 256) if setup.on_gpu else (1, 4)
    with only(setup.model) as repository:
        for changes in GPU_SETTINGS if setup.on_gpu else REHEARSED:
            name = ", ".join(f"{key}={value}" for key, value in changes.items())
            if time.perf_counter() > end:
                record.put("no time left", name)
                continue
            record.attempt(partial(_serve, setup, record, name, changes, clients, repository), name)


def _serve(
    setup: Setup, record: Record, name: str, changes: dict[str, object], clients: Sequence[int], repository: Path
) -> None:
    size = int(str(changes["max_batch_size"]))
    chosen = setup.chosen(setup.precision, size).model_copy(update={**changes, "max_queue_size": 512})
    local = setup.placed(setup.precision, size, graphs=chosen.cuda_graphs)
    record.put(offline_rate(local, SECONDS), name, "without_http_per_s")
    photos = local.labelled([photo.data for photo in setup.model.photos])
    del local  # frees the device's memory for the server
    start = time.perf_counter()
    with server.service(chosen, model_repository=repository, default_model=setup.model.name) as service:
        record.put(time.perf_counter() - start, name, "start_s")
        for count in clients:
            record.put(_rate(setup, service, photos, count), name, "by_clients", count)


def _rate(setup: Setup, service: Server, photos: Sequence[Photo], clients: int) -> dict[str, object]:
    processes = min(clients, max(1, min(4, available_cpus() // 4)))
    shares = [clients // processes + (i < clients % processes) for i in range(processes)]
    timeout_ms = setup.settings.max_timeout_ms
    workload = Workload(service.address, photos, setup.model.name, timeout_ms, patience_s=2 * timeout_ms / 1e3)
    before, start = _cpu_seconds(service.process.pid), time.perf_counter()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        asked = list(pool.map(ask, [workload] * processes, shares))
    cpus = (_cpu_seconds(service.process.pid) - before) / (time.perf_counter() - start)
    answered = [o for each in asked for o in each.outcomes if o.status == 200]
    return {
        "images_per_s": sum(sum(o.status == 200 for o in each.outcomes) / each.seconds for each in asked),
        "p50_ms": percentile((o.latency for o in answered), 50) * 1e3,
        "p99_ms": percentile((o.latency for o in answered), 99) * 1e3,
        "wrong": sum(not o.right for o in answered),
        "others": dict(Counter(str(o.status or o.error) for each in asked for o in each.outcomes if o.status != 200))
        or "none",
        "server_cpus": cpus,
        "busiest_asker": max(each.busy for each in asked),
    }


def ask(workload: Workload, clients: int) -> Asked:
    """Send requests from this process, first for a second that does not count."""
    asyncio.run(closed_loop(workload, clients, SECONDS / 5))
    start, cpu = time.perf_counter(), time.process_time()
    outcomes = asyncio.run(closed_loop(workload, clients, SECONDS))
    seconds = time.perf_counter() - start
    return Asked(outcomes, seconds, (time.process_time() - cpu) / seconds)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
