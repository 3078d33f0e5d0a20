"""The time that HTTP and batching add to a request on an idle server: photos go over HTTP and in process, in turn."""

from __future__ import annotations

import asyncio
import logging
import re
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bench.client import Connection, classify_request
from bench.in_process import InProcess, as_served
from bench.report import Report
from bench.repository import Model
from bench.server import service
from bench.timing import percentile
from service.settings import Settings

log = logging.getLogger("bench")

SERVERS = 3  # a process's memory layout changes its speed by 1 %, which is more than an idle request's overhead
ROUNDS = 5  # of all photos, after one round that doesn't count


class Times(NamedTuple):
    """Milliseconds of one photo. ``at_work`` is the part over HTTP that the server reports for decode and inference."""

    in_process: float
    over_http: float
    at_work: float


def measure(models: Mapping[str, Model], settings: Settings, *, quick: bool = False) -> Report:
    """Start the server several times, and send every model its photos, one request after another.

    Raises StartupError, RuntimeError for a status other than 200, ConnectionError if the server closes the connection.
    """
    starts, times = dict[int, dict[str, float | None]](), dict[str, list[Times]]()
    ready = {name: as_served(model, settings) for name, model in models.items()}
    for number in range(1 if quick else SERVERS):
        log.info("idle: server %d", number + 1)
        start = time.perf_counter()
        with service(settings, default_model=None) as server:
            starts[number + 1] = {"ready_s": time.perf_counter() - start, "peak_mb": server.peak_mb()}
            for name, model in ready.items():
                asked = asyncio.run(ask_in_turn(server.address, model, 1 if quick else ROUNDS))
                times.setdefault(name, []).extend(asked)
    figures = {
        "starts_with_all_models": starts,
        "idle_ms": {name: summary(of_model) for name, of_model in times.items()},
    }
    return Report("idle", figures)


async def ask_in_turn(address: tuple[str, int], model: InProcess, rounds: int) -> list[Times]:
    """Classify the model's photos in process and over HTTP in turn. Raises RuntimeError or ConnectionError."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    image, measured = model.empty(1), list[Times]()
    try:
        for photo in (1 + rounds) * list(model.model.photos):
            request = classify_request(photo.data, {"model": model.model.name})
            start = time.perf_counter()
            model.decode(photo.data, image[0])
            model.session.run(image)
            middle = time.perf_counter()
            answer = await connection.send(request)
            end = time.perf_counter()
            if answer.status != 200:
                raise RuntimeError(f"an idle server answered {answer.status}: {answer.body!r}")
            stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
            at_work = float(stages["decode"]) + float(stages["infer"])
            measured.append(Times((middle - start) * 1e3, (end - middle) * 1e3, at_work))
    finally:
        connection.transport.abort()
    return measured[len(model.model.photos) :]


def summary(times: Iterable[Times]) -> dict[str, float]:
    """Return the milliseconds of a request, and its excess over the in-process run and over the server's own work."""
    in_process, over_http, at_work = zip(*times, strict=True)
    return {
        "p50": statistics.median(over_http),
        "p99": percentile(over_http, 99),
        "in_process": statistics.median(in_process),
        "more_than_in_process": statistics.median(map(float.__sub__, over_http, in_process)),
        "more_than_at_work": statistics.median(map(float.__sub__, over_http, at_work)),
    }
