"""One model on several devices: any free device takes waiting images, and a failing device does not take most."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InferenceFailed, Unavailable
from service.scheduling.admission import Answer
from tests.service.scheduling.gated_session import GatedSession, ask, batching, queued, serving, until

pytestmark = pytest.mark.anyio


async def test_each_device_runs_a_batch_and_waiting_work_goes_to_the_first_that_is_free() -> None:
    sessions = [GatedSession(), GatedSession()]
    one = serving(*sessions)
    async with batching(one) as batcher:
        tasks = []
        for value, session in enumerate(sessions, 1):
            tasks += [asyncio.ensure_future(ask(batcher, one, value))]
            await session.running()
        tasks += await queued(batcher, one, 3, 4)
        assert [session.batches for session in sessions] == [[[1]], [[2]]]
        sessions[1].gate.release()
        await sessions[1].running()
        assert [sorted(batch) for batch in sessions[1].batches] == [[2], [3, 4]]
        for session in sessions:
            session.gate.release()
        answers = await asyncio.gather(*tasks)
    assert [answer.probabilities.tolist() for answer in answers] == [[1], [2], [3], [4]]


async def test_a_failing_device_fails_its_own_batch_alone() -> None:
    sessions = [GatedSession(), GatedSession()]
    one = serving(*sessions)

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("device lost")

    sessions[0].result = crash
    async with batching(one) as batcher:
        tasks = []
        for value, session in enumerate(sessions, 1):
            tasks += [asyncio.ensure_future(ask(batcher, one, value))]
            await session.running()
        for session in sessions:
            session.gate.release()
        bad, good = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, InferenceFailed)
    assert isinstance(good, Answer)


async def test_a_device_that_keeps_failing_takes_the_model_out_until_all_devices_answer() -> None:
    """Otherwise the failing device would take most of the work, because it is free again at once."""
    sessions = [GatedSession(), GatedSession()]
    one = serving(*sessions)
    failures, repaired = 0, False

    def crash(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal failures
        if repaired:
            return GatedSession.echo(images)
        failures += 1
        raise RuntimeError("device lost")

    sessions[1].result = crash
    async with batching(one) as batcher:
        for session in sessions:
            session.gate.release(100)
        # Requests one at a time go to the devices in turn: the sound device answers between the failures.
        outcomes = [
            type(outcome)
            for value in range(6)
            for outcome in await asyncio.gather(ask(batcher, one, value), return_exceptions=True)
        ]
        assert outcomes == [Answer, InferenceFailed] * 3
        with pytest.raises(Unavailable, match="device lost"):
            await ask(batcher, one, 7)
        await until(lambda: failures == 5)  # two probes failed, although the sound device answered
        assert one.model.breaker.reason is not None
        repaired = True
        await until(lambda: one.model.breaker.reason is None)
        assert (await ask(batcher, one, 8)).probabilities == [8]
