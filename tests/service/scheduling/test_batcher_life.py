"""What the shell leaves behind, and what runs in place of batches."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InvalidImage
from tests.service.scheduling.gated_session import GatedSession, ask, batching, queued, serving

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
