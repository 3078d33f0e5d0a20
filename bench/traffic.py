"""Send requests by a timetable (open loop) or, to find the server's capacity, one after another (closed loop).

In the open loop, arrival times are drawn before the run, and no request waits for another's answer. Latency counts from
a request's intended time. Otherwise a client that waits while the server stalls, or that is late itself, would hide
exactly the requests that suffered (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import closing

from bench.workload import Client, Outcome, Workload


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Draw the arrival times of ``rate`` independent requests a second, in seconds from the start."""
    draw, arrivals, time = random.Random(seed), list[float](), 0.0  # noqa: S311 - repeatable, not secret
    while (time := time + draw.expovariate(rate)) < seconds:
        arrivals.append(time)
    return arrivals


async def open_loop(workload: Workload, arrivals: Iterable[float], start: float) -> list[Outcome]:
    """Send a request at each of ``arrivals``, in seconds after ``start`` on the loop's clock. Return all outcomes."""
    loop = asyncio.get_running_loop()
    with closing(Client(workload)) as client:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for arrival in arrivals:
                await asyncio.sleep(start + arrival - loop.time())
                tasks.append(group.create_task(client.ask(start + arrival)))
    return [task.result() for task in tasks]


async def closed_loop(workload: Workload, clients: int, seconds: float) -> list[Outcome]:
    """Let each of ``clients`` send requests for ``seconds``, at least one, the next one after each answer."""
    loop, outcomes = asyncio.get_running_loop(), list[Outcome]()
    end = loop.time() + seconds

    async def one(client: Client) -> None:
        while True:
            outcomes.append(await client.ask(loop.time()))
            if loop.time() >= end:
                return

    with closing(Client(workload)) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(one(client))
    return outcomes
