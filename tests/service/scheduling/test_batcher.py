"""The batcher on one device: which requests share a batch, wait or are dropped, and when a row of pixels is free."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeadlineExceeded, QueueFull
from service.scheduling.batch_queue import Priority
from tests.service.scheduling.gated_session import GatedDecoder, GatedSession, ask, batching, queued, serving, until

pytestmark = pytest.mark.anyio


async def test_idle_starts_at_once_and_grows_only_while_busy() -> None:
    session = GatedSession()
    one = serving(session)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        rest = await queued(batcher, one, 2, 3, 4, 5)
        assert session.batches == [[1]]
        session.gate.release(2)
        answers = await asyncio.gather(first, *rest)
    assert sorted(session.batches[1]) == [2, 3, 4, 5]
    assert [answer.probabilities.tolist() for answer in answers] == [[1], [2], [3], [4], [5]]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4]


async def test_a_cancelled_request_leaves_its_batch_mates_alone() -> None:
    session = GatedSession()
    one = serving(session)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        two, three = await queued(batcher, one, 2, 3)
        two.cancel()
        await asyncio.wait([two])
        session.gate.release(2)
        assert (await three).batch_size == 1
        await first
    assert session.batches == [[1], [3]]
    assert len(one.pixels) == 0


async def test_a_row_is_not_reused_while_a_batch_reads_it() -> None:
    session = GatedSession()
    one = serving(session, rows=1)
    async with batching(one) as batcher:
        gone = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        gone.cancel()
        await asyncio.wait([gone])
        assert len(one.pixels) == 1
        with pytest.raises(QueueFull):
            await ask(batcher, one, 2)
        session.gate.release(2)
        await until(lambda: len(one.pixels) == 0)
        assert (await ask(batcher, one, 3)).probabilities == [3]


async def test_a_row_is_not_reused_while_a_decoder_writes_it() -> None:
    session = GatedSession()
    one = serving(session, rows=1)
    slow = GatedDecoder()

    async with batching(one) as batcher:
        gone = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        gone.cancel()
        await asyncio.wait([gone])
        assert len(one.pixels) == 1
        slow.go_on.set()
        await until(lambda: len(one.pixels) == 0)
    assert session.batches == []


async def test_a_client_gone_before_its_turn_is_never_decoded() -> None:
    session = GatedSession()
    one = serving(session)
    slow = GatedDecoder()
    decoded: list[NDArray[np.uint8]] = []

    async with batching(one, decode_threads=1) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        gone = asyncio.ensure_future(ask(batcher, one, 2, decode=decoded.append))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        slow.go_on.set()
        session.gate.release()
        await first
    assert decoded == []
    assert len(one.pixels) == 0


async def test_what_the_queue_drops_is_answered_then() -> None:
    session = GatedSession()
    one = serving(session, seconds=0.5)
    loop = asyncio.get_running_loop()
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        (late,) = await queued(batcher, one, 2)
        *_, ticket = batcher._admissions
        ticket.deadline = loop.time()  # as if the request had waited until now
        session.gate.release()
        with pytest.raises(DeadlineExceeded):
            await late
        await first
    assert session.batches == [[1]]


async def test_a_shed_request_is_told_so() -> None:
    session = GatedSession()
    one = serving(session, max_queue=1)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        (low,) = [asyncio.ensure_future(ask(batcher, one, 2, priority=Priority.LOW))]
        await asyncio.sleep(0)
        high = asyncio.ensure_future(ask(batcher, one, 3, priority=Priority.HIGH))
        with pytest.raises(QueueFull, match="higher priority"):
            await low
        session.gate.release(2)
        assert (await high).probabilities == [3]
        await first


async def test_requests_shed_before_they_are_decoded_are_told_so_then() -> None:
    session = GatedSession()
    one = serving(session, max_queue=2)
    slow = GatedDecoder()
    decoded: list[NDArray[np.uint8]] = []

    async with batching(one, decode_threads=1) as batcher:
        in_decoder = asyncio.ensure_future(ask(batcher, one, 1, priority=Priority.LOW, decode=slow))
        await slow.running()
        before_it = asyncio.ensure_future(ask(batcher, one, 2, priority=Priority.LOW, decode=decoded.append))
        await asyncio.sleep(0)
        high = [asyncio.ensure_future(ask(batcher, one, value, priority=Priority.HIGH)) for value in (3, 4)]
        for low in (before_it, in_decoder):
            with pytest.raises(QueueFull, match="higher priority"):
                await low
        assert len(one.pixels) == 3  # the decoder still writes one image, and will not begin the other that was shed
        slow.go_on.set()
        session.gate.release(2)
        await asyncio.gather(*high)
        assert len(one.pixels) == 0
    assert decoded == []


async def test_one_that_leaves_in_the_turn_in_which_it_is_shed_makes_room() -> None:
    session = GatedSession()
    one = serving(session, max_queue=1)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        low = asyncio.ensure_future(ask(batcher, one, 2, priority=Priority.LOW))
        await until(lambda: one.model.queue.ready == 1)
        low.cancel()
        high = ask(batcher, one, 3, priority=Priority.HIGH)
        asyncio.get_running_loop().call_soon(session.gate.release, 2)
        assert (await high).probabilities == [3]  # it started before the task of the client that left ran again
        await first
    assert low.cancelled()
    assert len(one.pixels) == 0


async def test_an_image_that_waits_for_a_decoder_goes_with_its_client() -> None:
    session = GatedSession()
    one = serving(session)
    slow = GatedDecoder()

    def image(_: NDArray[np.uint8]) -> None:
        raise AssertionError

    async with batching(one, decode_threads=1) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        gone = asyncio.ensure_future(ask(batcher, one, 2, decode=image))
        await asyncio.sleep(0)
        held = weakref.ref(image)
        del image
        gone.cancel()
        await asyncio.wait([gone])
        del gone
        gc.collect()
        assert held() is None
        slow.go_on.set()
        session.gate.release()
        await first


async def test_one_batch_at_a_time_on_a_device_whatever_the_model() -> None:
    sessions = [GatedSession(), GatedSession()]
    models = [serving(session) for session in sessions]
    async with batching(*models) as batcher:
        first = asyncio.ensure_future(ask(batcher, models[0], 1))
        await sessions[0].running()
        (other,) = await queued(batcher, models[1], 2)
        assert sessions[1].batches == []
        sessions[0].gate.release()
        await sessions[1].running()
        sessions[1].gate.release()
        await asyncio.gather(first, other)


async def test_a_full_queue_refuses_and_gives_the_row_back() -> None:
    session = GatedSession()
    one = serving(session, max_queue=1)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        (second,) = await queued(batcher, one, 2)
        leased = len(one.pixels)
        with pytest.raises(QueueFull):
            await ask(batcher, one, 3)
        assert len(one.pixels) == leased
        session.gate.release(2)
        await asyncio.gather(first, second)
