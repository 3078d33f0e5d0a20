"""The shell with a fake session behind a gate: the fake only decides when a batch ends, and how."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from service.admission import Admission, Answer, Lane, Runs
from service.batch_queue import BatchQueue, Priority
from service.batcher import Batcher
from service.cost_model import CostModel
from service.errors import DeadlineExceeded, InferenceFailed, InvalidImage, QueueFull, Unavailable
from service.metrics import Metrics
from service.pixel_slab import PixelSlab

pytestmark = pytest.mark.anyio
PATIENCE_S = 10.0  # a test that hangs fails after this


class GatedSession:
    """Answers each image with its first byte, once the test lets the batch through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.result: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = self.echo

    @staticmethod
    def echo(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images[:, 0, 0, :1].astype(np.float32)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(images[:, 0, 0, 0].tolist())
        self.entered.release()
        assert self.gate.acquire(timeout=PATIENCE_S)
        return self.result(images)

    async def running(self) -> None:
        """Wait until the next batch is inside ``run``."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


def probe(session: Runs) -> None:
    """Fail as the session does."""
    assert isinstance(session, GatedSession)
    session.result(np.zeros((1, 1, 1, 3), np.uint8))


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until what a decoder or the session does in its thread shows."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


def lane(*sessions: GatedSession, max_queue: int = 20, rows: int = 40, seconds: float = 0.001) -> Lane:
    cost = CostModel(dict.fromkeys((1, 2, 4, 8), seconds) | {8: seconds * 1.001})
    pixels = PixelSlab(rows, 8, 1, 1, devices=len(sessions))
    return Lane("fake", sessions, BatchQueue[Admission](cost, max_queue), pixels, probe)


@asynccontextmanager
async def batching(*lanes: Lane, decode_threads: int = 2) -> AsyncIterator[Batcher]:
    batcher = Batcher(decode_threads, Metrics(), probe_interval_s=0.001, devices=len(lanes[0].sessions))
    for one in lanes:
        batcher.add(one)
    yield batcher
    for one in lanes:
        for session in one.sessions:
            assert isinstance(session, GatedSession)
            session.gate.release(1000)
    await asyncio.to_thread(batcher.close)


async def ask(
    batcher: Batcher,
    to: Lane,
    value: int,
    *,
    priority: Priority = Priority.NORMAL,
    decode: Callable[[NDArray[np.uint8]], None] | None = None,
) -> Answer:
    def fill(pixels: NDArray[np.uint8]) -> None:
        pixels[...] = value

    deadline = asyncio.get_running_loop().time() + 1000.0
    with batcher.admit(to, deadline, priority) as admission:
        await admission.decode(decode or fill)
        return await admission.infer()


async def queued(batcher: Batcher, to: Lane, *values: int) -> list[asyncio.Task[Answer]]:
    """Start a request for each value, and return once all are decoded and wait for a batch."""
    decoded = len(to.queue) + len(values)
    tasks = [asyncio.ensure_future(ask(batcher, to, value)) for value in values]
    await until(lambda: sum(ticket.decoded for ticket in to.queue._waiting) == decoded)
    return tasks


async def test_idle_starts_at_once_and_grows_only_while_busy() -> None:
    session = GatedSession()
    one = lane(session)
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
    one = lane(session)
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
    one = lane(session, rows=1)
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
    one = lane(session, rows=1)
    decoding, go_on = threading.Event(), threading.Event()

    def slow(_: NDArray[np.uint8]) -> None:
        decoding.set()
        assert go_on.wait(PATIENCE_S)

    async with batching(one) as batcher:
        gone = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await asyncio.to_thread(decoding.wait, PATIENCE_S)
        gone.cancel()
        await asyncio.wait([gone])
        assert len(one.pixels) == 1
        go_on.set()
        await until(lambda: len(one.pixels) == 0)
    assert session.batches == []


async def test_a_client_gone_before_its_turn_is_never_decoded() -> None:
    session = GatedSession()
    one = lane(session)
    decoding, go_on = threading.Event(), threading.Event()
    decoded: list[NDArray[np.uint8]] = []

    def slow(_: NDArray[np.uint8]) -> None:
        decoding.set()
        assert go_on.wait(PATIENCE_S)

    async with batching(one, decode_threads=1) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1, decode=slow))
        await asyncio.to_thread(decoding.wait, PATIENCE_S)
        gone = asyncio.ensure_future(ask(batcher, one, 2, decode=decoded.append))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        go_on.set()
        session.gate.release()
        await first
    assert decoded == []
    assert len(one.pixels) == 0


async def test_a_failing_decode_fails_its_own_request() -> None:
    session = GatedSession()
    one = lane(session)

    def broken(_: NDArray[np.uint8]) -> None:
        raise InvalidImage("broken")

    async with batching(one) as batcher:
        session.gate.release(2)
        bad, good = await asyncio.gather(
            ask(batcher, one, 1, decode=broken), ask(batcher, one, 2), return_exceptions=True
        )
        assert isinstance(bad, InvalidImage)
        assert isinstance(good, Answer)
        await until(lambda: len(one.pixels) == 0)


async def test_a_crash_fails_its_batch_and_the_next_one_runs() -> None:
    session = GatedSession()
    one = lane(session)

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    async with batching(one) as batcher:
        session.result = crash
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        rest = await queued(batcher, one, 2, 3)
        session.gate.release()
        with pytest.raises(InferenceFailed, match="out of memory"):
            await first
        session.result = session.echo
        session.gate.release()
        assert [(await task).probabilities.tolist() for task in rest] == [[2], [3]]


async def test_a_wrong_number_of_answers_is_an_error_not_a_mix_up() -> None:
    session = GatedSession()
    one = lane(session)
    session.result = lambda images: session.echo(images)[:-1]
    async with batching(one) as batcher:
        session.gate.release()
        with pytest.raises(InferenceFailed, match="1 images went in, 0 answers came out"):
            await ask(batcher, one, 1)


async def test_what_the_queue_drops_is_answered_then() -> None:
    session = GatedSession()
    one = lane(session, seconds=0.5)
    loop = asyncio.get_running_loop()
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        with batcher.admit(one, loop.time() + 1000.0, Priority.NORMAL) as admission:
            admission.deadline = loop.time()  # as if it had waited until now
            session.gate.release()
            with pytest.raises(DeadlineExceeded):
                await admission.infer()
        await first
    assert session.batches == [[1]]


async def test_a_shed_request_is_told_so_and_not_decoded() -> None:
    session = GatedSession()
    one = lane(session, max_queue=1)
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


async def test_one_batch_at_a_time_on_a_device_whatever_the_model() -> None:
    sessions = [GatedSession(), GatedSession()]
    lanes = [lane(session) for session in sessions]
    async with batching(*lanes) as batcher:
        first = asyncio.ensure_future(ask(batcher, lanes[0], 1))
        await sessions[0].running()
        (other,) = await queued(batcher, lanes[1], 2)
        assert sessions[1].batches == []
        sessions[0].gate.release()
        await sessions[1].running()
        sessions[1].gate.release()
        await asyncio.gather(first, other)


async def test_a_full_queue_refuses_and_gives_the_row_back() -> None:
    session = GatedSession()
    one = lane(session, max_queue=1)
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


async def test_a_model_that_keeps_failing_is_refused_until_its_probe_succeeds() -> None:
    session = GatedSession()
    one = lane(session)

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("driver lost")

    async with batching(one) as batcher:
        session.result = crash
        for _ in range(2):
            session.gate.release()
            with pytest.raises(InferenceFailed):
                await ask(batcher, one, 1)
        assert one.breaker.reason is None
        last = asyncio.ensure_future(ask(batcher, one, 1))
        for _ in range(3):
            await session.running()
        (waiting,) = await queued(batcher, one, 2)
        session.gate.release()
        with pytest.raises(InferenceFailed):
            await last
        with pytest.raises(Unavailable, match="driver lost"):
            await waiting
        with pytest.raises(Unavailable, match="3 batches in a row"):
            await ask(batcher, one, 3)
        session.result = session.echo
        await until(lambda: one.breaker.reason is None)
        session.gate.release()
        assert (await ask(batcher, one, 4)).probabilities == [4]


async def test_each_device_runs_a_batch_and_waiting_work_goes_to_the_first_that_is_free() -> None:
    sessions = [GatedSession(), GatedSession()]
    one = lane(*sessions)
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
    one = lane(*sessions)

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
    """Otherwise it would take most of the work: it is free again at once."""
    sessions = [GatedSession(), GatedSession()]
    one = lane(*sessions)
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
        # One at a time, they take turns: the sound device's answers come between the failures.
        outcomes = [
            type(outcome)
            for value in range(6)
            for outcome in await asyncio.gather(ask(batcher, one, value), return_exceptions=True)
        ]
        assert outcomes == [Answer, InferenceFailed] * 3
        with pytest.raises(Unavailable, match="device lost"):
            await ask(batcher, one, 7)
        await until(lambda: failures == 5)  # two probes, which the sound device answered
        assert one.breaker.reason is not None
        repaired = True
        await until(lambda: one.breaker.reason is None)
        assert (await ask(batcher, one, 8)).probabilities == [8]
