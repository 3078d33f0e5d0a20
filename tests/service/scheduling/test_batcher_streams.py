"""Streams of one CPU: a lone image has all of them, and several are shared out."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeadlineUnmeetable, InferenceFailed, Unavailable
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import BatchQueue, Priority
from service.scheduling.cost_model import CostModel
from tests.service.scheduling.gated_session import GatedSession, ask, batching, lane, queued, until

pytestmark = pytest.mark.anyio

FULL = 8  # the largest batch


async def test_a_lone_image_has_the_whole_cpu() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    async with batching(one) as batcher:
        for value in (1, 2):
            task = asyncio.ensure_future(ask(batcher, one, value))
            await whole.running()
            whole.gate.release()
            assert (await task).probabilities.tolist() == [value]
    assert (whole.batches, stream.batches) == ([[1], [2]], [])


async def test_each_stream_takes_its_share_of_what_waits() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole, max_queue=40)
    async with batching(one) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, one, 0))]
        await whole.running()
        tasks += await queued(batcher, one, *range(1, 3 * FULL + 1))
        assert stream.batches == []  # a batch on the whole CPU has nothing beside it
        whole.gate.release()
        await stream.running()
        await stream.running()
        assert sorted(stream.batches) == [list(range(1, FULL + 1)), list(range(FULL + 1, 2 * FULL + 1))]
        stream.gate.release()
        await stream.running()
        assert stream.batches[2] == list(range(2 * FULL + 1, 2 * FULL + FULL // 2 + 1))  # the rest is the other's
        stream.gate.release(100)
        answers = await asyncio.gather(*tasks)
    assert [answer.probabilities.tolist() for answer in answers] == [[value] for value in range(3 * FULL + 1)]
    assert whole.batches == [[0]]


async def test_two_images_have_a_stream_each() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    async with batching(one) as batcher:
        tasks = [asyncio.ensure_future(ask(batcher, one, 0))]
        await whole.running()
        tasks += await queued(batcher, one, 1, 2)
        whole.gate.release()
        await stream.running()
        await stream.running()
        assert sorted(stream.batches) == [[1], [2]]
        stream.gate.release()
        tasks += [asyncio.ensure_future(ask(batcher, one, 3))]
        await stream.running()  # beside the one that runs still
        stream.gate.release(2)
        answers = await asyncio.gather(*tasks)
    assert [answer.probabilities.tolist() for answer in answers] == [[0], [1], [2], [3]]
    assert len(whole.batches) == 1


async def test_what_is_not_alone_is_promised_no_more_than_a_stream_gives() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)
    one.queue = BatchQueue(CostModel({1: 100.0, 2: 200.0}), 20, alone=0.5)
    deadline = asyncio.get_running_loop().time() + 130.0
    async with batching(one) as batcher:
        batcher.check(one, deadline - 50.0, Priority.NORMAL)
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await whole.running()
        with pytest.raises(DeadlineUnmeetable):  # 50 s until then, and 100 s if another comes
            batcher.check(one, deadline, Priority.NORMAL)
        with pytest.raises(DeadlineUnmeetable):
            batcher.admit(one, deadline, Priority.NORMAL)
        whole.gate.release()
        await first


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


async def test_streams_that_work_do_not_hide_that_the_whole_cpu_fails() -> None:
    stream, whole = GatedSession(), GatedSession()
    one = lane(stream, stream, whole=whole)

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    whole.result = crash
    async with batching(one) as batcher:
        stream.gate.release(100)
        for _ in range(3):
            assert one.breaker.reason is None
            lone = asyncio.ensure_future(ask(batcher, one, 1))
            await whole.running()
            pair = await queued(batcher, one, 2, 3)
            whole.gate.release()
            with pytest.raises(InferenceFailed):
                await lone
            await asyncio.wait(pair)
        assert one.breaker.reason is not None
        whole.gate.release(100)
        whole.result = GatedSession.echo
        await until(lambda: one.breaker.reason is None)


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
