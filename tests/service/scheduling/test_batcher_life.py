"""What the shell leaves behind, and what runs in place of batches."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InvalidImage
from tests.service.scheduling.gated_session import GatedSession, ask, batching, queued, serving, until

pytestmark = pytest.mark.anyio


async def test_a_damaged_picture_is_not_kept_by_the_error_that_it_causes() -> None:
    session = GatedSession()
    one = serving(session)

    class Picture:
        """An object that a weak reference can watch."""

    def broken(_: NDArray[np.uint8]) -> None:
        picture = Picture()
        held.append(weakref.ref(picture))
        try:
            raise ValueError
        except ValueError as error:
            raise InvalidImage("broken") from error

    held: list[weakref.ref[Picture]] = []
    async with batching(one) as batcher:
        gc.disable()
        try:
            with pytest.raises(InvalidImage) as raised:
                await ask(batcher, one, 1, decode=broken)
            assert held[0]() is None
        finally:
            gc.enable()
    assert raised.value.__cause__ is None


async def test_a_trial_runs_while_no_batch_does() -> None:
    session = GatedSession()
    one = serving(session)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        trial = asyncio.ensure_future(batcher.try_out(lambda: len(session.batches)))
        (second,) = await queued(batcher, one, 2)
        session.gate.release()
        assert await trial == 1  # the trial ran before the waiting batch
        session.gate.release()
        await asyncio.gather(first, second)
        with pytest.raises(ZeroDivisionError):
            await batcher.try_out(lambda: 1 // 0)
        session.gate.release()
        await ask(batcher, one, 3)


async def test_a_removed_model_ends_with_its_last_batch() -> None:
    session = GatedSession()
    one = serving(session)
    async with batching(one) as batcher:
        first = asyncio.ensure_future(ask(batcher, one, 1))
        await session.running()
        (second,) = await queued(batcher, one, 2)
        removing = asyncio.ensure_future(batcher.remove(one))
        session.gate.release()
        await session.running()
        await first
        assert not removing.done()
        second.cancel()
        await asyncio.wait([second])
        assert not removing.done()  # the batch still runs, although no client waits for it
        session.gate.release()
        await removing
    assert repr(batcher.scheduler) == "<idle>"


async def test_a_decoder_thread_that_can_not_start_costs_no_row_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool puts work into its queue before it starts a thread for the work, so the work runs all the same."""
    one = serving(GatedSession(), rows=2)
    async with batching(one, decode_threads=1) as batcher:
        submit = batcher.decoders.submit

        def refuse(*work: Any) -> None:
            submit(*work)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(batcher.decoders, "submit", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await ask(batcher, one, 1)
        await asyncio.wrap_future(submit(int))  # the only decoder has come to the end of its queue
        assert len(one.pixels) == 0
        assert sorted([one.pixels.lease(), one.pixels.lease()]) == [0, 1]  # both are there
        assert one.pixels.free == 0


async def test_a_trial_that_fails_keeps_nothing_of_its_work() -> None:
    class Work:
        def __call__(self) -> None:
            raise ValueError("a wrong answer")

    async with batching(serving(GatedSession())) as batcher:
        gc.disable()
        try:
            work = Work()
            held = weakref.ref(work)
            with pytest.raises(ValueError, match="a wrong answer"):
                await batcher.try_out(work)
            del work
            await until(lambda: held() is None)
        finally:
            gc.enable()
