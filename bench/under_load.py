"""A server under load: its requests, its metrics and its memory, seen from outside."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.client import get
from bench.in_process import as_served
from bench.repository import Model, Photo
from bench.run import Run
from bench.server import Server, service
from bench.traffic import closed_loop, open_loop
from bench.workload import Workload
from service.settings import Settings

log = logging.getLogger("bench")

CLIENTS = 16  # enough to fill the largest batch and the next one
QUICK_S = 6.0
SAMPLING_S = 0.5


@dataclass(frozen=True)
class Plan:
    """The target of the load: ``model`` on a server with all ``models``. ``quick`` shortens runs, to try them out."""

    settings: Settings
    models: Mapping[str, Model]
    model: str
    quick: bool = False
    _photos: dict[str, Sequence[Photo]] = field(default_factory=dict)

    def seconds(self, wanted: float) -> float:
        """Return the seconds of a run that needs ``wanted`` seconds to give meaningful figures."""
        return min(wanted, QUICK_S) if self.quick else wanted

    def photos(self, name: str) -> Sequence[Photo]:
        """Return a model's photos with the right label of each.

        If the model does not know the label of every photo, the right labels are the model's answers in this process.
        """
        if name not in self._photos:
            model = self.models[name]
            known = all(photo.label is not None for photo in model.photos)
            self._photos[name] = (
                model.photos
                if known
                else as_served(model, self.settings).labelled([photo.data for photo in model.photos])
            )
        return self._photos[name]

    @asynccontextmanager
    async def server(self) -> AsyncIterator[UnderLoad]:
        """Start a server and stop it at the end."""
        log.info("starting a server")
        with service(self.settings, default_model=self.model) as server:
            found: list[dict[str, Any]] = json.loads(await get(server.address, "/models"))["models"]
            yield UnderLoad(self, server, {info["name"]: info for info in found if info["ready"]})


@dataclass(frozen=True)
class UnderLoad:
    """One server under one plan. ``models`` is the server's description of each model that is ready, by name."""

    plan: Plan
    running: Server
    models: Mapping[str, Any]

    def workload(self, model: str, **options: Any) -> Workload:
        """Return a workload for ``model``. ``options`` are the options of ``Workload``."""
        return Workload(self.running.address, self.plan.photos(model), model, **options)

    async def open_loop(self, workload: Workload, arrivals: Sequence[float], seconds: float) -> Run:
        """Send requests of ``workload`` at ``arrivals``, which were drawn for ``seconds``."""
        log.info("%s: %d requests in %.0f s", workload.model, len(arrivals), seconds)
        deadline_s = (workload.timeout_ms or self.plan.settings.default_timeout_ms) / 1e3
        with watched(self.running) as memory:
            start = asyncio.get_running_loop().time()
            outcomes = await open_loop(workload, arrivals, start)
        return Run(start, start + seconds, deadline_s, outcomes, memory)

    async def closed_loop(self, model: str, clients: int, seconds: float) -> Run:
        """Let ``clients`` send one request after another for ``seconds``, with the longest deadline allowed."""
        seconds, unhurried_ms = self.plan.seconds(seconds), self.plan.settings.max_timeout_ms
        log.info("%s: %d clients for %.0f s", model, clients, seconds)
        workload = self.workload(model, timeout_ms=unhurried_ms, patience_s=2 * unhurried_ms / 1e3)
        with watched(self.running) as memory:
            start = asyncio.get_running_loop().time()
            outcomes = await closed_loop(workload, clients, seconds)
        return Run(start, start + seconds, unhurried_ms / 1e3, outcomes, memory)

    async def capacity(self, model: str) -> float:
        """Return the best sustained rate in right answers a second. Raises RuntimeError if no answer is right."""
        rate = (await self.closed_loop(model, CLIENTS, 25)).goodput()
        if not rate:
            said = "".join(self.running.output[-20:])
            raise RuntimeError(f"{model} gave no right answer to {CLIENTS} clients; the server said:\n{said}")
        log.info("%s: capacity %.2f/s", model, rate)
        return rate

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over its samples with these labels. NaN if the server lacks the metric."""
        return total((await get(self.running.address, "/metrics")).decode(), name, **labels)


def total(exposition: str, name: str, **labels: str) -> float:
    """Sum the samples ``name`` with these labels in Prometheus' text format. 0 for no sample, NaN for no metric."""
    for family in text_string_to_metric_families(exposition):
        if name in (family.name + suffix for suffix in ("", "_total", "_sum", "_count")):
            samples = (sample for sample in family.samples if sample.name == name)
            return math.fsum(sample.value for sample in samples if labels.items() <= sample.labels.items())
    return math.nan


@contextmanager
def watched(server: Server) -> Iterator[list[tuple[float, int]]]:
    """Collect (time on the loop's clock, resident bytes) of a server until the server or the block ends."""
    samples: list[tuple[float, int]] = []

    async def watch() -> None:
        while (size := server.resident_bytes()) is not None:
            samples.append((asyncio.get_running_loop().time(), size))
            await asyncio.sleep(SAMPLING_S)

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield samples
    finally:
        watching.cancel()
