"""What remembering answers gains and costs: a server that remembers and one that does not, asked in turn."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import re
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench.client import Connection, classify_request
from bench.in_process import as_served
from bench.report import Report
from bench.repository import Model, only
from bench.saturated import CLIENTS, ask_together
from bench.server import Server, service
from bench.timing import in_turns
from service.settings import Settings

log = logging.getLogger("bench")

ROUNDS = 15  # of all photos, after one round that doesn't count
SECONDS = 4.0  # of one measurement with many clients
SIZES = (200_000, 500_000, 20_000_000)  # bytes: a photo, what is hashed on the event loop at most, the largest body


class Time(NamedTuple):
    """Milliseconds of one request, and the part beside the decoding and inference that the server reports."""

    total: float
    beside: float


def measure(model: Model, settings: Settings, *, quick: bool = False) -> Report:
    """Ask both servers with new photos and with known ones.

    ``miss_costs_ms`` is the median of what the same new photo takes longer where answers are remembered, beside
    decoding and inference. Raises StartupError or InvalidManifest, RuntimeError for a status other than 200,
    ConnectionError.
    """
    local, rounds, seconds = as_served(model, settings), 1 if quick else ROUNDS, 0.4 if quick else SECONDS
    photos = local.labelled([photo.data for photo in model.photos])
    with only(model) as repository:
        start = functools.partial(
            service,
            settings,
            model_repository=repository,
            default_model=None,
            # The servers take the device and precision chosen above instead of choosing again.
            device=local.placement.device,
            precision=local.placement.precision,
        )
        with start(cache_bytes=0) as off, start(cache_bytes=100_000_000) as on:
            servers = {"off": off, "on": on}
            log.info("%s: photos that are new, and then known", model.name)
            times = asyncio.run(_ask_in_turn(servers, model, rounds))
            log.info("%s: %d clients with the same few photos", model.name, CLIENTS)
            ask = functools.partial(ask_together, model=model.name, timeout_ms=settings.max_timeout_ms, seconds=seconds)
            rates = {name: ask(one.address, photos, CLIENTS).images_per_s for name, one in servers.items()}
    figures: dict[str, object] = {
        "served": str(local),
        "p50_ms": {what: statistics.median(time.total for time in each) for what, each in times.items()},
        "miss_costs_ms": statistics.median(
            on.beside - off.beside for on, off in zip(times["miss, on"], times["miss, off"], strict=True)
        ),
        "images_per_s_of_known_photos": rates,
        "hash_ms": _hash_ms(rounds),
    }
    return Report("cache", figures)


async def _ask_in_turn(servers: Mapping[str, Server], model: Model, rounds: int) -> dict[str, list[Time]]:
    """Send each photo to both servers, in either order, and again to the server that remembers."""
    connect = asyncio.get_running_loop().create_connection
    connections = {name: (await connect(Connection, *one.address))[1] for name, one in servers.items()}
    times: dict[str, list[Time]] = {"miss, off": [], "miss, on": [], "hit": []}
    try:
        for number, photo in enumerate((1 + rounds) * list(model.photos)):
            # What follows a JPEG's end is not decoded, but hashed.
            request = classify_request(photo.data + number.to_bytes(8), {"model": model.name})
            for name in sorted(servers, reverse=number % 2 > 0):
                times[f"miss, {name}"].append(await _time(connections[name], request))
            times["hit"].append(await _time(connections["on"], request))
    finally:
        for connection in connections.values():
            connection.transport.abort()
    return {what: each[len(model.photos) :] for what, each in times.items()}


async def _time(connection: Connection, request: bytes) -> Time:
    start = time.perf_counter()
    answer = await connection.send(request)
    total = (time.perf_counter() - start) * 1e3
    if answer.status != 200:
        raise RuntimeError(f"an idle server answered {answer.status}: {answer.body!r}")
    at_work = re.findall(r"(?:decode|infer);dur=([\d.]+)", answer.headers["server-timing"])
    return Time(total, total - sum(map(float, at_work)))


def _hash_ms(rounds: int) -> dict[str, float]:
    """Return the milliseconds that hashing takes by size, and those until a thread has done nothing at all."""
    with ThreadPoolExecutor(1) as thread:
        work: dict[str, Callable[[], object]] = {
            **{f"{size / 1e6:g} MB": functools.partial(hashlib.blake2b, bytes(size)) for size in SIZES},
            "a thread's turn": lambda: thread.submit(int).result(),
        }
        seconds = in_turns(work, rounds, block_s=0.05)
    return {what: statistics.median(each) * 1e3 for what, each in seconds.items()}
