"""An image that is alone runs in its decoder's thread, unless another comes first."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeadlineExceeded, InferenceFailed, InvalidImage
from service.scheduling.admission import HeadStart, Lane
from service.scheduling.batch_queue import Priority
from tests.service.scheduling.gated_session import GatedDecoder, GatedSession, ask, batching, lane, queued, until

pytestmark = pytest.mark.anyio


class Threads(GatedSession):
    """Notes which threads its batches run in."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.threads.append(threading.current_thread().name.partition("-")[0])
        return super().run(images)


def streaming() -> tuple[Lane, Threads, Threads]:
    stream, whole = Threads(), Threads()
    return lane(stream, stream, whole=whole), stream, whole


async def test_a_lone_image_runs_where_it_was_decoded_and_others_do_not() -> None:
    one, stream, whole = streaming()
    async with batching(one) as batcher:
        lone = asyncio.ensure_future(ask(batcher, one, 1))
        await whole.running()
        assert len(batcher._idle) == 2  # the loop has not looked
        pair = await queued(batcher, one, 2, 3)
        assert not batcher._idle
        whole.gate.release()
        answer = await lone
        stream.gate.release(2)
        await asyncio.gather(*pair)
    assert (answer.probabilities.tolist(), answer.batch_size, answer.queue_s) == ([1], 1, 0.0)
    assert (whole.threads, stream.threads) == (["decode"], ["infer", "infer"])


@pytest.mark.parametrize("devices", [1, 2])
async def test_a_gpu_keeps_to_its_thread(devices: int) -> None:
    session = Threads()
    one = lane(session) if devices == 1 else lane(whole=session, devices=2)
    one.head_starts = False
    session.gate.release()
    async with batching(one, devices=devices) as batcher:
        await ask(batcher, one, 1)
    assert session.threads == ["infer"]


async def test_an_image_that_is_decoded_sooner_runs_first() -> None:
    one, stream, whole = streaming()
    slow = GatedDecoder()
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        second = asyncio.ensure_future(ask(batcher, one, 2))
        await whole.running()
        slow.go_on.set()
        await until(lambda: one.queue.ready == 1)  # it waits, though the other runs on the whole CPU
        assert len(whole.batches) == 1
        whole.gate.release(2)
        await asyncio.gather(first, second)
    assert (whole.threads, stream.batches) == (["infer", "infer"], [])


async def test_a_newcomer_to_another_model_takes_the_head_start_over() -> None:
    one, _, whole = streaming()
    other, _, others = streaming()
    slow = GatedDecoder()
    async with batching(one, other) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        second = asyncio.ensure_future(ask(batcher, other, 2))
        await others.running()
        slow.go_on.set()
        await until(lambda: one.queue.ready == 1)
        assert whole.batches == []
        others.gate.release()
        whole.gate.release()
        await asyncio.gather(first, second)
    assert (others.threads, whole.threads) == (["decode"], ["infer"])


async def test_the_loop_catches_up_before_anything_else_starts() -> None:
    one, _, whole = streaming()
    other, _, others = streaming()
    async with batching(one, other) as batcher:
        with batcher.admit(one, asyncio.get_running_loop().time() + 1000.0, Priority.NORMAL) as lone:
            answer = asyncio.ensure_future(lone.run(lambda pixels: pixels.fill(1)))
            await asyncio.sleep(0)
            await whole.running()
            assert (len(one.queue), len(batcher._idle)) == (1, 2)
            with batcher.admit(other, lone.deadline, Priority.NORMAL) as newcomer:
                assert newcomer.head_start is None
                assert (len(one.queue), len(batcher._idle)) == (0, 0)
                newcomer.decoded = True
                batcher._start_if_idle()
            assert others.batches == []
            whole.gate.release()
            assert (await answer).probabilities.tolist() == [1]


@pytest.mark.parametrize("ran", [0, 1])
async def test_a_client_that_leaves_takes_nothing_with_it(ran: int) -> None:
    one, _, whole = streaming()
    slow = GatedDecoder()
    async with batching(one) as batcher:
        gone = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await slow.running()
        if ran:
            slow.go_on.set()
            await whole.running()
        gone.cancel()
        await asyncio.wait([gone])
        assert len(one.pixels) == 1  # somebody still touches them
        slow.go_on.set()
        whole.gate.release(2)
        await until(lambda: len(one.pixels) == 0 and len(batcher._idle) == 2)
        assert len(whole.batches) == ran
        assert (await ask(batcher, one, 2)).probabilities.tolist() == [2]
    assert whole.threads == ["decode"] * (ran + 1)  # the next one has a head start again


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_an_answered_image_is_gone_without_the_garbage_collector() -> None:
    one, _, whole = streaming()
    whole.gate.release()
    async with batching(one) as batcher:
        with batcher.admit(one, asyncio.get_running_loop().time() + 1000.0, Priority.NORMAL) as admission:
            await admission.run(lambda pixels: pixels.fill(1))
        held = weakref.ref(admission)
        del admission
        await until(lambda: held() is None)


async def test_an_image_decoded_too_late_is_dropped_and_costs_nothing() -> None:
    one, _, whole = streaming()
    slow = GatedDecoder()
    loop = asyncio.get_running_loop()
    async with batching(one) as batcher:
        with batcher.admit(one, loop.time() + 1000.0, Priority.NORMAL) as admission:
            answer = asyncio.ensure_future(admission.run(slow))
            await slow.running()
            admission.deadline = loop.time()  # as if decoding had taken until now
            slow.go_on.set()
            with pytest.raises(DeadlineExceeded):
                await answer
    assert whole.batches == []


async def test_what_fails_is_told_and_the_next_image_runs() -> None:
    one, _, whole = streaming()

    def broken(_: NDArray[np.uint8]) -> None:
        raise InvalidImage("not an image")

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    whole.gate.release(100)
    async with batching(one) as batcher:
        with pytest.raises(InvalidImage):
            await ask(batcher, one, 1, decode=broken)
        whole.result = crash
        with pytest.raises(InferenceFailed, match="out of memory"):
            await ask(batcher, one, 2)
        await until(lambda: batcher._head_start is None)  # or the next image would find this one running
        whole.result = GatedSession.echo
        assert (await ask(batcher, one, 3)).probabilities.tolist() == [3]
    assert whole.threads == ["decode", "decode"]
    assert len(one.pixels) == 0


def test_a_head_start_is_taken_once() -> None:
    head_start = HeadStart(GatedSession(), 0.0, lambda *_: None)
    assert not head_start.taken
    assert (head_start.take(), head_start.take()) == (True, False)
    assert head_start.taken
