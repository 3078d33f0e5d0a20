"""A running server, what it is asked, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.load.client import Sample, Workload
from tests.load.open_loop import closed_loop, open_loop
from tests.load.report import Run
from tests.server import Server, serving

log = logging.getLogger("load")

DEADLINE_MS = int(Settings.model_fields["default_timeout_ms"].default)
UNHURRIED_MS = int(Settings.model_fields["max_timeout_ms"].default)
CLIENTS = 16  # enough to keep the largest batch and the next one full
QUICK_S = 6.0
SAMPLING_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What to measure: a model repository, by labelled photos; ``quick`` only tries that everything works."""

    repository: Path
    photos: Sequence[Sample]
    model: str
    quick: bool = False

    def seconds(self, wanted: float) -> float:
        """Return how long to run what needs ``wanted`` seconds to mean something."""
        return min(wanted, QUICK_S) if self.quick else wanted

    @contextmanager
    def bench(self) -> Iterator[Bench]:
        """Start a server, and stop it."""
        log.info("starting a server")
        with serving(self.repository, default_model=self.model) as server:
            yield Bench(self, server)


class Bench:
    """One server under one plan."""

    def __init__(self, plan: Plan, server: Server) -> None:
        self.plan = plan
        self.server = server
        with server.client() as client:
            found: list[dict[str, Any]] = client.get("/models").json()["models"]
        self.models = {info["name"]: info for info in found if info["ready"]}
        self._samples = {name: self._samples_of(name) for name in self.models}

    def workload(self, model: str, **options: Any) -> Workload:
        """Return requests for ``model``; ``options`` are those of ``Workload``."""
        return Workload(self.server.url, self._samples[model], model, **options)

    def batch_1_s(self, model: str) -> float:
        """Return how long a batch of one took at warm-up, in seconds."""
        return float(self.models[model]["batch_ms"]["1"]) / 1e3

    async def open_loop(self, workload: Workload, arrivals: Sequence[float], seconds: float) -> Run:
        """Send ``workload`` at ``arrivals``, which were drawn for ``seconds``."""
        log.info("%s: %d requests in %.0f s", workload.model, len(arrivals), seconds)
        async with watched(self.server.process.pid) as memory:
            start = asyncio.get_running_loop().time()
            outcomes = await open_loop(workload, arrivals, start)
        return Run(start, start + seconds, (workload.timeout_ms or DEADLINE_MS) / 1e3, outcomes, memory)

    async def closed_loop(self, model: str, clients: int, seconds: float) -> Run:
        """Let ``clients`` ask one request after another for ``seconds``, with a deadline that refuses none."""
        seconds = self.plan.seconds(seconds)
        log.info("%s: %d clients for %.0f s", model, clients, seconds)
        workload = self.workload(model, timeout_ms=UNHURRIED_MS, patience_s=2 * UNHURRIED_MS / 1e3)
        async with watched(self.server.process.pid) as memory:
            start = asyncio.get_running_loop().time()
            outcomes = await closed_loop(workload, clients, seconds)
        return Run(start, start + seconds, UNHURRIED_MS / 1e3, outcomes, memory)

    async def capacity(self, model: str) -> float:
        """Return the best sustained rate in right answers a second."""
        rate = (await self.closed_loop(model, CLIENTS, 25)).goodput()
        if not rate:
            raise RuntimeError(f"{model} gave no right answer to {CLIENTS} clients; the server said:\n{self._said()}")
        log.info("%s: capacity %.2f/s", model, rate)
        return rate

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over its samples with these labels; NaN if the server has no such metric."""
        with self.server.client() as client:
            return total(client.get("/metrics").text, name, **labels)

    def _samples_of(self, model: str) -> list[Sample]:
        """Return the photos with the labels that are right for ``model``.

        To a model that knows no kitchenware, what it answers while idle is right.
        """
        if "kitchenware" in self.models[model]["weights"]:
            return list(self.plan.photos)
        parameters: dict[str, str | int] = {"model": model, "timeout_ms": UNHURRIED_MS}
        headers = {"Content-Type": "image/jpeg"}
        with self.server.client() as client:
            answers = [
                client.post("/classify", params=parameters, content=photo.data, headers=headers).raise_for_status()
                for photo in self.plan.photos
            ]
        labels = [answer.json()["predictions"][0]["label"] for answer in answers]
        return [Sample(photo.data, label) for photo, label in zip(self.plan.photos, labels, strict=True)]

    def _said(self) -> str:
        return "".join(self.server.output[-20:])


def total(exposition: str, name: str, **labels: str) -> float:
    """Sum, in Prometheus' text format, the samples ``name`` with these labels: 0 of none, NaN of no such metric."""
    for family in text_string_to_metric_families(exposition):
        if name in (family.name + suffix for suffix in ("", "_total", "_sum", "_count")):
            samples = (sample for sample in family.samples if sample.name == name)
            return math.fsum(sample.value for sample in samples if labels.items() <= sample.labels.items())
    return math.nan


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[tuple[float, int]]]:
    """Collect (time on the loop's clock, resident bytes) of a process until it ends or the block does."""
    samples: list[tuple[float, int]] = []

    async def watch() -> None:
        while (size := resident_bytes(pid)) is not None:
            samples.append((asyncio.get_running_loop().time(), size))
            await asyncio.sleep(SAMPLING_S)

    watching = asyncio.create_task(watch())
    try:
        yield samples
    finally:
        watching.cancel()


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None
