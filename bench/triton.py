"""Pixels over the Open Inference Protocol: the service beside the session without HTTP, and beside a real Triton.

All requests are made before the measurement, and ``bench.client`` sends them. tritonclient would serialize the same
arrays again for each request, on the measured machine's own CPUs.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import server
from bench.client import Answer, Connection, classify_request, infer_request
from bench.in_process import InProcess, as_served, decoded
from bench.report import Bar, Report
from bench.repository import Model, Photo, only
from bench.triton_server import triton
from service.settings import Settings

log = logging.getLogger("bench")

CLIENTS = {1: 16, 8: 4, 32: 2}  # by images in a request: enough that the device never waits for a client
QUICK = {1: 1, 8: 1}
ROUNDS = 9
SECONDS = 3.0  # of one rate
IDLE_ROUNDS = 15  # of all photos

Addresses = Mapping[str, tuple[str, int]]


def measure(model: Model, settings: Settings, program: Path | None = None, *, quick: bool = False) -> Report:
    """Ask the service, and the Triton in the folder ``program`` if there is one, with the photos of ``model``.

    Raises StartupError, OSError for a folder without Triton, and RuntimeError for an answer that is not the session's.
    """
    local, most = as_served(model, settings), max(n * clients for n, clients in CLIENTS.items())
    chosen: dict[str, object] = {"device": local.placement.device, "precision": local.placement.precision}
    with ExitStack() as running:
        told = chosen | {"model_repository": running.enter_context(only(model)), "default_model": None}
        told |= {"max_queue_size": max(settings.max_queue_size, most)}
        addresses = {"service": running.enter_context(server.service(settings, **told)).address}
        if program is not None:
            other = triton(program, model, settings, max(CLIENTS), **chosen)
            addresses["triton"] = running.enter_context(other).address
        rates = _rates(local, addresses, *((QUICK, 1, 0.1) if quick else (CLIENTS, ROUNDS, SECONDS)))
        idle = asyncio.run(_idle(local, addresses, 1 if quick else IDLE_ROUNDS))
    over = {n: _over_the_session(rate) for n, rate in rates.items()}
    more_ms = statistics.median(map(float.__sub__, idle["infer, picture"], idle["classify, picture"])) * 1e3
    figures = {
        "served": str(local),
        "triton": "not measured: no --triton" if program is None else str(program),
        "images_per_s_by_images_in_a_request": {
            n: {who: statistics.median(each) for who, each in rate.items()} for n, rate in rates.items()
        },
        "over_the_session": over,
        "idle_ms": {way: statistics.median(seconds) * 1e3 for way, seconds in idle.items()},
        "infer_more_than_classify_ms": more_ms,
    }
    bars = [Bar(f"{n} images in a request, over the session", over[n]["service"], 0.95, True) for n in rates if n > 1]
    return Report("triton", figures, [*bars, Bar("infer more than classify, idle, ms", more_ms, 1)])


def _rates(
    local: InProcess, addresses: Addresses, sizes: Mapping[int, int], rounds: int, seconds: float
) -> dict[int, dict[str, list[float]]]:
    """Return images/s by images in a request: of the session alone and of each server, one figure a round."""
    images = np.resize(decoded(local.model, local.model.photos, local.settings), local.empty(max(sizes)).shape)
    right = local.session.run(images).argmax(axis=1)
    rates = {n: {who: list[float]() for who in ("session", *addresses)} for n in sizes}
    for number in range(rounds):
        log.info("session, %s in turn, %d of %d", ", ".join(addresses), number + 1, rounds)
        for n, clients in sizes.items():
            rates[n]["session"].append(_session_rate(local, images, seconds))
            for who, address in addresses.items():
                asking = _server_rate(address, _pixels(local, images[:n]), right[:n], clients, seconds)
                rates[n][who].append(asyncio.run(asking))
    return rates


def _session_rate(local: InProcess, images: NDArray[np.uint8], seconds: float) -> float:
    """Return images/s of full batches, one after another."""
    size, done, start = local.settings.max_batch_size, 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        local.session.run(images[:size])
        done += size
    return done / taken


async def _server_rate(
    address: tuple[str, int], request: bytes, right: NDArray[np.int64], clients: int, seconds: float
) -> float:
    """Return images/s of ``clients`` that send ``request`` one after another. Raises RuntimeError for wrong answers."""
    loop = asyncio.get_running_loop()
    end, done = loop.time() + seconds, itertools.count()

    async def one() -> float:
        _, connection = await loop.create_connection(Connection, *address)
        try:
            while loop.time() < end:
                answer = await connection.send(request)
                if (_probabilities(answer, len(right)).argmax(axis=1) != right).any():
                    raise RuntimeError("a server's answer is not the session's")
                next(done)
        finally:
            connection.transport.abort()
        return loop.time()

    start = loop.time()
    last = max(await asyncio.gather(*(one() for _ in range(clients))))
    return next(done) * len(right) / (last - start)


def _probabilities(answer: Answer, images: int) -> NDArray[np.float32]:
    head = int(_whole(answer).headers["inference-header-content-length"])
    return np.frombuffer(answer.body[head:], "<f4").reshape(images, -1)


def _whole(answer: Answer) -> Answer:
    if answer.status != 200:
        raise RuntimeError(f"a server answered {answer.status}: {answer.body[:200]!r}")
    return answer


async def _idle(local: InProcess, addresses: Addresses, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of single requests by way: every photo by every way, in random order, after a lost round."""
    loop, photos, chance = asyncio.get_running_loop(), local.model.photos, random.Random(0)  # noqa: S311 - no secret
    connections = {who: (await loop.create_connection(Connection, *where))[1] for who, where in addresses.items()}
    taken = defaultdict[str, list[float]](list)
    for photo, image in (1 + rounds) * list(zip(photos, decoded(local.model, photos, local.settings), strict=True)):
        start = time.perf_counter()
        local.session.run(image[None])
        taken["session, pixels"].append(time.perf_counter() - start)
        ways = list(_ways(local, photo, image, addresses))
        chance.shuffle(ways)  # a fixed order could favour one way
        for way, who, request in ways:
            start = time.perf_counter()
            _whole(await connections[who].send(request))
            taken[way].append(time.perf_counter() - start)
    for connection in connections.values():
        connection.transport.abort()
    return {way: seconds[len(photos) :] for way, seconds in taken.items()}


def _ways(
    local: InProcess, photo: Photo, image: NDArray[np.uint8], addresses: Addresses
) -> Iterator[tuple[str, str, bytes]]:
    """Yield the name of each way to ask for one photo over HTTP, the server to ask, and the request."""
    name, timeout_ms = local.model.name, local.settings.max_timeout_ms
    element = struct.pack("<I", len(photo.data)) + photo.data
    yield "classify, picture", "service", classify_request(photo.data, {"model": name, "timeout_ms": timeout_ms})
    yield "infer, picture", "service", infer_request(name, "BYTES", [1], element, timeout_ms)
    for who in addresses:
        yield f"{who}, pixels", who, _pixels(local, image[None])


def _pixels(local: InProcess, images: NDArray[np.uint8]) -> bytes:
    timeout_ms = local.settings.max_timeout_ms
    return infer_request(local.model.name, "UINT8", images.shape, images.tobytes(), timeout_ms)


def _over_the_session(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each server's rate over the session's of the same round: the median, the least and the most."""
    session, *servers = rates
    figures = dict[str, float]()
    for who in servers:
        ratios = [rate / limit for rate, limit in zip(rates[who], rates[session], strict=True)]
        figures |= {who: statistics.median(ratios), f"{who}_least": min(ratios), f"{who}_most": max(ratios)}
    return figures
