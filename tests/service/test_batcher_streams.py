"""Streams of one CPU: a batch has all of them, until enough waits to keep each busy with batches of its own."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from service.admission import Answer
from service.errors import InferenceFailed, Unavailable
from tests.service.gated_session import GatedSession, ask, batching, lane, queued, until

pytestmark = pytest.mark.anyio

FULL = 8  # the largest batch


async def test_a_lone_batch_has_the_whole_cpu() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    async with batching(one) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, one, 1))]
        await whole.running()
        tasks += await queued(batcher, one, 2, 3)
        assert (whole.batches, stream.batches) == ([[1]], [])  # the next one waits for its turn
        whole.gate.release(2)
        answers = await asyncio.gather(*tasks)
    assert [answer.probabilities.tolist() for answer in answers] == [[1], [2], [3]]
    assert [answer.batch_size for answer in answers] == [1, 2, 2]
    assert stream.batches == []


async def test_streams_run_full_batches_side_by_side_once_enough_waits() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    async with batching(one) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, one, 0))]
        await whole.running()
        tasks += await queued(batcher, one, *range(1, FULL + 6))
        whole.gate.release()
        await stream.running()
        assert stream.batches == [list(range(1, FULL + 1))]
        # Five wait: no full batch, so they don't slow down the one that runs.
        more = await queued(batcher, one, 101, 102)
        assert len(stream.batches) == 1
        more += [asyncio.ensure_future(ask(batcher, one, 103))]
        await stream.running()
        assert stream.batches[1] == [*range(FULL + 1, FULL + 6), 101, 102, 103]
        stream.gate.release(2)
        answers = await asyncio.gather(*tasks, *more)
    expected = [*range(FULL + 6), 101, 102, 103]
    assert [answer.probabilities.tolist() for answer in answers] == [[value] for value in expected]
    assert len(whole.batches) == 1


async def test_what_is_left_has_the_whole_cpu_again() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    async with batching(one) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, one, 0))]
        await whole.running()
        tasks += await queued(batcher, one, *range(1, FULL + 6))
        whole.gate.release()
        await stream.running()
        stream.gate.release()
        await whole.running()
        assert whole.batches[1][:5] == list(range(FULL + 1, FULL + 6))
        whole.gate.release()
        await asyncio.gather(*tasks)


async def test_a_model_without_streams_waits_for_the_whole_cpu_and_is_not_overtaken() -> None:
    stream, whole, other = GatedSession(), GatedSession(), GatedSession()
    streaming = lane(stream, stream, whole=whole, max_queue=40)
    light = lane(whole=other, devices=2, seconds=0.0001)  # so that it has had less than its share
    async with batching(streaming, light) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, streaming, 0))]
        await whole.running()
        tasks += await queued(batcher, streaming, *range(1, 3 * FULL))
        whole.gate.release()
        await stream.running()
        await stream.running()
        assert len(stream.batches) == 2
        tasks += await queued(batcher, light, 201)
        stream.gate.release()
        await until(lambda: len(batcher._idle) == 1)
        assert len(stream.batches) == 2  # though a full batch waits
        stream.gate.release()
        await other.running()
        assert len(stream.batches) == 2
        for session in (stream, whole, other):
            session.gate.release(100)
        answers = await asyncio.gather(*tasks)
    assert other.batches == [[201]]
    assert [answer.probabilities.tolist() for answer in answers] == [[value] for value in [*range(3 * FULL), 201]]


async def test_whole_and_streams_must_answer_a_probe() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    broken = True

    def crash(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if broken:
            raise RuntimeError("out of memory")
        return GatedSession.echo(images)

    whole.result = crash
    async with batching(one) as batcher:
        for session in (stream, whole):
            session.gate.release(100)
        for value in range(3):
            with pytest.raises(InferenceFailed, match="out of memory"):
                await ask(batcher, one, value)
        with pytest.raises(Unavailable, match="out of memory"):
            await ask(batcher, one, 3)
        broken = False
        await until(lambda: one.breaker.reason is None)
        assert isinstance(await ask(batcher, one, 4), Answer)
