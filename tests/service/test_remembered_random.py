"""Remembered answers under any order of requests, departures, passing deadlines and ends of runs, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidImage, QueueFull
from service.remembered import Remembered
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Priority, Terms

IMAGES = (b"sound 1", b"sound 2", b"damaged")
ENDS = ("well", "refused")

asks = st.tuples(st.just("ask"), st.sampled_from(IMAGES), st.sampled_from(Priority), st.integers(1, 5))
others = st.tuples(st.sampled_from(["leave", "pass", "end"]), st.integers(0, 15), st.sampled_from(ENDS))
Step = tuple[str, bytes, Priority, int] | tuple[str, int, str]


def as_strict(one: Terms, other: Terms) -> bool:
    return one.priority <= other.priority and one.max_wait <= other.max_wait


@dataclass(eq=False)
class Request:
    """A request for one image. ``run`` is what it runs now, ``refused`` what became of its own run."""

    image: bytes
    terms: Terms
    task: asyncio.Task[list[Answer]] = field(init=False)
    run: asyncio.Future[list[Answer]] | None = None
    refused: bool = False
    left: bool = False


@dataclass
class World:
    """Requests for answers of which one is remembered at a time, so that answers are forgotten, too."""

    memory: Remembered = field(default_factory=lambda: Remembered(1, 2 * Remembered(1, 0)._entry_bytes - 1))
    requests: list[Request] = field(default_factory=list)
    now: int = 0

    @property
    def waiting(self) -> list[Request]:
        return [request for request in self.requests if not request.task.done()]

    def ask(self, image: bytes, priority: Priority, patience: int) -> None:
        request = Request(image, Terms(self.now + patience, priority))

        async def run(_: Sequence[int]) -> list[Answer]:
            running = (one for one in self.waiting if one.run is not None and one.image == image)
            assert not any(as_strict(one.terms, request.terms) for one in running), "it ran, and need not have"
            request.run = asyncio.get_running_loop().create_future()
            try:
                return await request.run
            finally:
                request.run = None

        request.task = asyncio.ensure_future(self.memory.answers([image], request.terms, run))
        self.requests.append(request)

    def end(self, number: int, how: str) -> None:
        running = [one for one in self.waiting if one.run is not None and not one.run.done()]
        if not running:
            return
        request = running[number % len(running)]
        assert request.run is not None
        if how == "refused":
            request.refused = True
            request.run.set_exception(QueueFull("full", 1.0))
        elif request.image == b"damaged":
            request.run.set_exception(InvalidImage("damaged"))
        else:
            value = np.array([IMAGES.index(request.image)], np.float32)
            request.run.set_result([Answer(value, 1, {"decode": 0.0, "queue": 0.0, "infer": 0.0})])

    def leave(self, gone: Sequence[Request]) -> None:
        for request in gone:
            request.left = True
            request.task.cancel()

    def happen(self, what: str, number: int, how: str) -> None:
        if what == "end":
            self.end(number, how)
        elif what == "leave":
            self.leave(self.waiting[number : number + 1])
        else:  # time passes, and a request whose deadline has passed is cancelled
            self.now += 1
            self.leave([request for request in self.waiting if request.terms.deadline <= self.now])

    async def settled(self) -> None:
        """Let all that can happen happen. Then whoever waits must wait for a run on terms as strict as its own."""
        for _ in range(3 * len(self.requests) + 3):
            await asyncio.sleep(0)
        for request in self.waiting:
            runs = (one for one in self.waiting if one.run is not None and one.image == request.image)
            assert any(as_strict(one.terms, request.terms) for one in runs), "it waits for nothing, or for a worse one"


async def play(steps: Sequence[tuple[Step, bool]]) -> None:
    world = World()
    for step, alone in steps:
        if len(step) == 4:
            world.ask(*step[1:])
        else:
            world.happen(*step)
        if alone:  # else the next step happens in the same turn of the loop
            await world.settled()
    await world.settled()
    while world.waiting:
        world.end(0, "well")
        await world.settled()
    for request in world.requests:
        error = None if request.task.cancelled() else request.task.exception()
        assert request.task.cancelled() == request.left
        if request.left:
            continue
        assert isinstance(error, QueueFull) == request.refused, "a refusal is the answer to the one that ran alone"
        if isinstance(error, InvalidImage):
            assert request.image == b"damaged"
        elif not request.refused:
            assert error is None
            assert request.task.result()[0].probabilities == [IMAGES.index(request.image)]
    assert world.memory._flights == {}


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(asks | others, st.booleans()), max_size=30))
def test_nobody_runs_needlessly_waits_for_a_worse_one_or_fails_with_another(steps: list[tuple[Step, bool]]) -> None:
    asyncio.run(play(steps))
