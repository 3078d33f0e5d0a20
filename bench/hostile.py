"""The server under pictures that are made to hold, fill or crash it."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.bombs import BOMBS
from bench.client import Connection, classify_request, get
from bench.report import Bar, Report
from bench.run import Run
from bench.under_load import CLIENTS, Plan, UnderLoad

log = logging.getLogger("bench")

BOMBS_PER_S = 5
MB_OF_PICTURES = 1536 + 256  # the memory that the settings allow for decoders and for bodies on two CPUs


async def hostile(plan: Plan) -> list[Report]:
    """Send five bombs a second to a server that is busy: good photos lose little, and memory stays bounded."""
    bombs = [build() for build, _ in BOMBS.values()]
    calm, bombed = list[Run](), list[Run]()
    stalls, statuses = list[float](), Counter[int]()
    async with plan.server() as server:
        for _ in range(3):
            calm.append(await server.closed_loop(plan.model, CLIENTS, 20))
            async with _bombarded(server, bombs, stalls, statuses):
                bombed.append(await server.closed_loop(plan.model, CLIENTS, 40))
    before, run = Run.of_all(calm), Run.of_all(bombed)
    ratios = [hit.goodput() / whole.goodput() for whole, hit in zip(calm, bombed, strict=True)]
    most = max(size for _, size in run.memory) - max(size for _, size in before.memory)
    bars = [
        Bar("goodput over goodput without bombs, median", statistics.median(ratios), 0.9, at_least=True),
        Bar("slowest health check, ms", max(stalls) * 1e3, 1000),
        Bar("memory that bombs take, MB", most / 1e6, MB_OF_PICTURES),
        Bar("requests unanswered", len(run.of("unanswered")), 0),
        Bar("answers wrong or failed", len(run.of("wrong", "failed")), 0),
    ]
    figures = {f"goodput_ratio_{i}": ratio for i, ratio in enumerate(ratios)}
    figures |= {f"bombs_answered_{status}": count for status, count in sorted(statuses.items())}
    return [Report("hostile", run.figures() | figures, bars, run.plots())]


@asynccontextmanager
async def _bombarded(
    server: UnderLoad, bombs: Sequence[bytes], stalls: list[float], statuses: Counter[int]
) -> AsyncIterator[None]:
    """Send one bomb after another while the block runs, and note how long each health check takes."""

    async def send(bomb: bytes) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *server.running.address)
        try:
            statuses[(await connection.send(classify_request(bomb, {"model": server.plan.model}))).status] += 1
        except ConnectionError as error:
            log.info("a bomb got no answer: %r", error)
            statuses[0] += 1
        finally:
            connection.transport.abort()

    async def bombard() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(1_000_000):
                group.create_task(send(bombs[number % len(bombs)]))
                await asyncio.sleep(1 / BOMBS_PER_S)

    async def ask_health() -> None:
        while True:
            start = time.perf_counter()
            await get(server.running.address, "/health/live")
            stalls.append(time.perf_counter() - start)
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(bombard()), asyncio.create_task(ask_health())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
