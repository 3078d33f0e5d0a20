"""The batcher on two slots, under any order of arrivals, departures and ends of batches and trials."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.scheduling.admission import Answer
from service.scheduling.batcher import Batcher, Served
from tests.service.scheduling.gated_session import PATIENCE_S, GatedSession, ask, batching, serving, until

SLOTS = 2
MOST = 250  # requests at most: each has its own value, which is one byte

# What happens, and to which request or batch, counted round, or how many ask for which model.
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask other", "leave", "finish", "try out"]), st.integers(0, 15)), max_size=40
)


@dataclass(eq=False)
class Held:
    """A batch or a trial that runs until the test lets it end, and the slots that it holds."""

    slots: set[int]
    may_end: threading.Event = field(default_factory=threading.Event)


class HeldSession(GatedSession):
    """A session whose batches each run until the test lets them end."""

    def __init__(self, slot: int, running: list[Held], overlaps: list[Held]) -> None:
        super().__init__()
        self._slot, self._running, self._overlaps = slot, running, overlaps

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        hold({self._slot}, self._running, self._overlaps)
        return self.echo(images)


def hold(slots: set[int], running: list[Held], overlaps: list[Held]) -> None:
    """Hold ``slots`` in the calling thread until the test lets it end."""
    held = Held(slots)
    overlaps += [other for other in running if other.slots & slots]
    running.append(held)
    assert held.may_end.wait(PATIENCE_S)
    running.remove(held)


async def settled(batcher: Batcher, models: Sequence[Served], running: list[Held], overlaps: list[Held]) -> None:
    """Wait until threads and loop have nothing left to do, then check what must hold at any time."""

    def quiet() -> bool:
        held = sum(len(one.slots) for one in running if not one.may_end.is_set())
        decoding = any(admission._touched and not ticket.decoded for ticket, admission in batcher._admissions.items())
        return overlaps != [] or (not decoding and held == repr(batcher.scheduler).count("busy"))

    await asyncio.sleep(0)
    await until(quiet)
    assert overlaps == [], "a slot ran two things at a time"
    if not running:
        assert [one.model.queue.ready for one in models] == [0] * len(models), "work waits and nothing runs"


async def play(steps: Sequence[tuple[str, int]]) -> None:
    running, overlaps = list[Held](), list[Held]()
    models = [
        serving(*(HeldSession(slot, running, overlaps) for slot in range(count)), rows=2 * MOST, max_queue=MOST)
        for count in (SLOTS, 1)
    ]
    tasks, trials = list[asyncio.Task[Answer]](), list[asyncio.Task[None]]()
    async with batching(*models) as batcher:
        for what, number in steps:
            if what.startswith("ask"):
                to = models[what == "ask other"]
                values = range(len(tasks), min(len(tasks) + number, MOST))
                tasks += [asyncio.ensure_future(ask(batcher, to, value)) for value in values]
            elif what == "leave" and tasks:
                tasks[number % len(tasks)].cancel()
            elif what == "try out":
                trials.append(asyncio.ensure_future(batcher.try_out(lambda: hold({*range(SLOTS)}, running, overlaps))))
            elif running:
                running[number % len(running)].may_end.set()
            await settled(batcher, models, running, overlaps)
        while running:
            running[0].may_end.set()
            await settled(batcher, models, running, overlaps)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*trials)
        assert batcher._admissions == {}
    for value, answer in enumerate(answers):
        if isinstance(answer, BaseException):
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer.probabilities.tolist() == [value]
    assert [len(one.pixels) for one in models] == [0, 0]  # every row is free again


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_slot_runs_two_things_and_nothing_is_lost_or_left(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))
