"""A failing picture fails only its own request, a failing batch only its own requests, and a failing model recovers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InferenceFailed, InvalidImage, Unavailable
from service.scheduling.admission import Answer
from tests.service.scheduling.gated_session import GatedDecoder, GatedSession, ask, batching, queued, serving, until

pytestmark = pytest.mark.anyio


async def test_a_failing_decode_fails_its_own_request() -> None:
    session = GatedSession()
    one = serving(session)

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
    one = serving(session)

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


async def test_a_batch_without_memory_says_so() -> None:
    session = GatedSession()
    one = serving(session)

    def no_memory(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise MemoryError("unable to allocate 1 GB")

    async with batching(one) as batcher:
        session.result = no_memory
        session.gate.release()
        with pytest.raises(MemoryError, match="1 GB"):
            await ask(batcher, one, 1)


async def test_a_wrong_number_of_answers_is_an_error_not_a_mix_up() -> None:
    session = GatedSession()
    one = serving(session)
    session.result = lambda images: session.echo(images)[:-1]
    async with batching(one) as batcher:
        session.gate.release()
        with pytest.raises(InferenceFailed, match="1 images went in, 0 answers came out"):
            await ask(batcher, one, 1)


async def test_a_model_that_keeps_failing_is_refused_until_its_probe_succeeds() -> None:
    session = GatedSession()
    one = serving(session)

    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("driver lost")

    async with batching(one) as batcher:
        session.result = crash
        for _ in range(2):
            session.gate.release()
            with pytest.raises(InferenceFailed):
                await ask(batcher, one, 1)
        assert one.model.breaker.reason is None
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
        await until(lambda: one.model.breaker.reason is None)
        session.gate.release()
        assert (await ask(batcher, one, 4)).probabilities == [4]


async def test_an_unexpected_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    session = GatedSession()
    one = serving(session)

    def broken(_: NDArray[np.uint8]) -> None:
        raise SystemExit("a decoder that wants to end the process")

    session.result = GatedSession.crash
    session.gate.release()
    async with batching(one) as batcher:
        with pytest.raises(RuntimeError, match="wants to end the process"):
            await ask(batcher, one, 1, decode=broken)
        with pytest.raises(InferenceFailed, match="out of memory"):
            await ask(batcher, one, 2)
        assert [record.exc_info is not None for record in caplog.records] == [True, True]
        session.result = GatedSession.echo
        session.gate.release()
        assert (await ask(batcher, one, 3)).probabilities == [3]


async def test_a_trial_whose_caller_is_cancelled_holds_its_slot_to_the_end() -> None:
    session = GatedSession()
    one = serving(session)
    async with batching(one) as batcher:
        work = GatedDecoder()
        trial = asyncio.ensure_future(batcher.try_out(lambda: work(np.zeros(1, np.uint8))))
        await work.running()
        trial.cancel()
        await asyncio.wait([trial])
        (waiting,) = await queued(batcher, one, 1)
        assert session.batches == []
        work.go_on.set()
        session.gate.release()
        assert (await waiting).probabilities == [1]
