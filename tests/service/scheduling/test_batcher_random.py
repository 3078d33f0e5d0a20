"""The shell on streams of one CPU, under any order of arrivals, departures and ends of batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.scheduling.admission import Answer, Lane
from service.scheduling.batcher import Batcher
from tests.service.scheduling.gated_session import PATIENCE_S, GatedSession, ask, batching, lane, until

STREAMS = 2
MOST = 250  # requests: each has a value of its own, a byte

# What happens, and to which request or batch, counted round, or how many ask for which lane.
STEPS = st.lists(st.tuples(st.sampled_from(["ask", "ask other", "leave", "finish"]), st.integers(0, 15)), max_size=40)


@dataclass(eq=False)
class Run:
    """A batch that runs, until it may end."""

    on_whole: bool
    may_end: threading.Event = field(default_factory=threading.Event)


class Held(GatedSession):
    """A session each of whose batches waits for leave of its own to end."""

    def __init__(self, running: list[Run], overlaps: list[Run], on_whole: bool) -> None:
        super().__init__()
        self._running = running
        self._overlaps = overlaps
        self._on_whole = on_whole

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        run = Run(self._on_whole)
        self._overlaps += [other for other in self._running if run.on_whole or other.on_whole]
        self._running.append(run)
        assert run.may_end.wait(PATIENCE_S)
        self._running.remove(run)
        return self.echo(images)


async def settled(batcher: Batcher, lanes: Sequence[Lane], running: list[Run], overlaps: list[Run], asked: int) -> None:
    """Wait until threads and loop have done all that they can, then check what must hold at any time."""

    def quiet() -> bool:
        held = sum(STREAMS if run.on_whole else 1 for run in running if not run.may_end.is_set())
        head_start = batcher._head_start
        ahead = head_start.image if head_start and head_start.taken else None  # it runs, and the loop has not looked
        free = 0 if ahead else len(batcher._idle)
        decoding = any(not ticket.decoded for one in lanes for ticket in one.queue._waiting if ticket is not ahead)
        return overlaps != [] or (not decoding and held + free == STREAMS)

    await asyncio.sleep(0)
    await until(quiet)
    assert overlaps == [], "a batch on the whole CPU and another ran at a time"
    if not running:
        assert [one.queue.ready for one in lanes] == [0] * len(lanes), f"after {asked} requests nothing runs"


async def play(steps: Sequence[tuple[str, int]]) -> None:
    running, overlaps = list[Run](), list[Run]()
    stream = Held(running, overlaps, on_whole=False)
    lanes = [
        lane(stream, stream, whole=Held(running, overlaps, on_whole=True), rows=2 * MOST, max_queue=MOST),
        lane(whole=Held(running, overlaps, on_whole=True), devices=STREAMS, rows=2 * MOST, max_queue=MOST),
    ]
    tasks = list[asyncio.Task[Answer]]()
    async with batching(*lanes, devices=STREAMS) as batcher:
        for what, number in steps:
            if what.startswith("ask"):
                to = lanes[what == "ask other"]
                values = range(len(tasks), min(len(tasks) + number, MOST))
                tasks += [asyncio.ensure_future(ask(batcher, to, value)) for value in values]
            elif what == "leave" and tasks:
                tasks[number % len(tasks)].cancel()
            elif running:
                running[number % len(running)].may_end.set()
            await settled(batcher, lanes, running, overlaps, len(tasks))
        while running:
            running[0].may_end.set()
            await settled(batcher, lanes, running, overlaps, len(tasks))
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    for value, answer in enumerate(answers):
        if isinstance(answer, BaseException):
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer.probabilities.tolist() == [value]
    assert [len(one.pixels) for one in lanes] == [0, 0]  # every row is back


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whole_and_streams_never_run_at_once_and_nothing_is_lost_or_left(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))
