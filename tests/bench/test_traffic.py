"""The times at which requests are sent, and the start of each latency, do not depend on the server."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from bench.traffic import closed_loop, open_loop, poisson
from tests.bench.stub import GOOD, PATIENCE_S, now, serving, until, workload

pytestmark = pytest.mark.anyio


def test_arrivals_are_poisson_and_repeatable() -> None:
    arrivals = poisson(100, 100, seed=1)
    gaps = [late - early for early, late in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 100, rel=0.05)
    assert variance == pytest.approx(mean**2, rel=0.1)  # evenly spaced arrivals would have no variance
    assert 0 < arrivals[0] < arrivals[-1] < 100
    assert poisson(100, 100, seed=1) == arrivals
    assert poisson(100, 100, seed=2) != arrivals


async def test_a_stalled_server_holds_nothing_back_and_its_stall_is_in_every_latency() -> None:
    arrivals = [i / 1000 for i in range(20)]
    async with serving(GOOD, is_open=False) as stub:
        start = now()
        run = asyncio.create_task(open_loop(workload(stub), arrivals, start))
        await until(lambda: len(stub.requests) == len(arrivals))  # a client that waits for answers would never send all
        opened = now()
        stub.gate.set()
        outcomes = await run
    assert [outcome.intended for outcome in outcomes] == [start + arrival for arrival in arrivals]
    assert all(outcome.kind == "right" for outcome in outcomes)
    assert all(outcome.latency >= opened - outcome.intended for outcome in outcomes)


async def test_a_late_client_counts_its_own_delay() -> None:
    async with serving(GOOD) as stub:
        (outcome,) = await open_loop(workload(stub), [0.0], start=now() - 5)
    assert outcome.sent - outcome.intended >= 5
    assert outcome.latency >= 5
    assert outcome.sent <= outcome.first_byte <= outcome.finished


async def test_a_closed_loop_waits_for_each_answer() -> None:
    async with serving(GOOD) as stub:
        outcomes = await closed_loop(workload(stub), clients=3, seconds=0.05)
    assert stub.most_in_flight <= 3
    assert stub.connections == 3
    assert len(outcomes) == len(stub.requests) >= 3
    assert all(outcome.kind == "right" for outcome in outcomes)


async def test_vanishing_clients_close_their_socket_and_the_others_are_answered() -> None:
    asked = 50
    async with serving(GOOD, is_open=False) as stub:
        load = workload(stub, vanishing=0.3, vanish_within_s=0.05)
        run = asyncio.create_task(open_loop(load, [0.0] * asked, now()))
        await until(lambda: len(stub.requests) == asked and stub.left >= 5)
        stub.gate.set()
        outcomes = await run
        vanished = sum(outcome.kind == "vanished" for outcome in outcomes)
        await until(lambda: stub.in_flight == 0)
    assert 5 <= stub.left <= vanished <= asked / 2
    assert sum(outcome.kind == "right" for outcome in outcomes) == asked - vanished
    assert all(outcome.latency <= 0.05 + PATIENCE_S for outcome in outcomes if outcome.kind == "vanished")
