"""Remembered answers: what is found and forgotten, and which of several requests for one image runs.

A test says when and how each run ends. Deadlines are numbers that nothing waits for.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from service import remembered
from service.errors import DeadlineExceeded, InferenceFailed, InvalidImage, QueueFull
from service.remembered import Image, Remembered
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Priority, Terms

pytestmark = pytest.mark.anyio
STAGES = {"decode": 1.0, "queue": 2.0, "infer": 3.0}


def answers(*values: float) -> list[Answer]:
    return [Answer(np.array([value], np.float32), 4, STAGES) for value in values]


@dataclass
class Run:
    """A run of a request's images, which ends as the test says."""

    terms: Terms
    numbers: Sequence[int]
    ended: asyncio.Future[list[Answer]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class Asked:
    """Requests of one version with one class, and the runs that they started."""

    memory: Remembered = field(default_factory=lambda: Remembered(1, 1_000_000))
    runs: list[Run] = field(default_factory=list)

    async def __call__(
        self,
        *images: Image,
        deadline: float = 10.0,
        priority: Priority = Priority.NORMAL,
        max_wait: float = math.inf,
    ) -> asyncio.Task[list[Answer]]:
        """Send a request, and return once it runs or waits."""
        terms = Terms(deadline, priority, max_wait)

        async def run(numbers: Sequence[int]) -> list[Answer]:
            self.runs.append(Run(terms, numbers))
            return await self.runs[-1].ended

        task = asyncio.ensure_future(self.memory.answers(images, terms, run))
        await asyncio.sleep(0)
        return task


def values(given: Sequence[Answer]) -> list[float]:
    return [float(answer.probabilities[0]) for answer in given]


async def test_an_image_that_comes_again_does_not_run() -> None:
    ask = Asked()
    first = await ask(b"a")
    ask.runs[0].ended.set_result(answers(7))
    (ran,) = await first
    (again,) = await (await ask(bytearray(b"a")))
    assert len(ask.runs) == 1
    assert (ran.batch_size, list(ran.stages)) == (4, ["cache", "decode", "queue", "infer"])
    assert (again.batch_size, list(again.stages)) == (0, ["cache"])
    assert again.probabilities.tobytes() == ran.probabilities.tobytes()
    assert again.stages["cache"] > 0


async def test_the_bytes_of_a_file_are_no_pixels() -> None:
    ask = Asked()
    await ask(bytes(3))
    await ask(np.zeros((1, 1, 3), np.uint8))
    await ask(np.ones((1, 1, 3), np.uint8))
    assert len(ask.runs) == 3


async def test_large_images_are_hashed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = list[int]()
    hashed = remembered._hashed

    def noted(images: Sequence[Image]) -> tuple[bytes, ...]:
        threads.append(threading.get_ident())
        return hashed(images)

    monkeypatch.setattr(remembered, "_hashed", noted)
    await remembered._keys([bytes(500_000)])
    await remembered._keys([bytes(500_000), b"1"])
    assert threads[0] == threading.get_ident() != threads[1]


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    entry = Remembered(6, 0)._entry_bytes
    memory = Remembered(6, 2 * entry)
    for key in (b"a", b"b"):
        memory.remember(key, bytes(24))
    memory.find(b"a")
    memory.remember(b"c", bytes(24))
    assert [memory.find(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    memory.remember(b"a", bytes(24))
    memory.remember(b"b", bytes(24))
    assert [memory.find(key) is not None for key in (b"a", b"b", b"c")] == [True, True, False]
    assert memory.held_bytes == 2 * entry


@pytest.mark.parametrize("classes", [6, 1000])
def test_the_bytes_that_are_counted_are_those_that_are_taken(classes: int) -> None:
    most_bytes = 1_000_000
    memory = Remembered(classes, most_bytes)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            memory.remember(os.urandom(32), os.urandom(4 * classes))
            taken, _ = tracemalloc.get_traced_memory()
            assert taken <= memory.held_bytes + 2_000  # an empty dictionary takes some bytes
    finally:
        tracemalloc.stop()
    assert most_bytes - memory._entry_bytes < memory.held_bytes <= most_bytes
    assert memory.held_bytes < 1.6 * taken


async def test_memory_for_less_than_one_answer_remembers_none() -> None:
    ask = Asked(Remembered(1, 1))
    first, second = await ask(b"a"), await ask(b"a")
    ask.runs[0].ended.set_result(answers(7))
    assert values(await first + await second) == [7, 7]
    await ask(b"a")
    assert (len(ask.runs), ask.memory.held_bytes) == (2, 0)


async def test_of_identical_images_at_a_time_one_runs() -> None:
    ask = Asked()
    tasks = [await ask(b"a", deadline=10.0 + i) for i in range(5)]
    other = await ask(b"b")
    assert len(ask.runs) == 2
    ask.runs[0].ended.set_result(answers(7))
    ask.runs[1].ended.set_result(answers(8))
    assert [values(await task) for task in tasks] == [[7]] * 5
    assert [(await task)[0].batch_size for task in tasks] == [4, 0, 0, 0, 0]
    assert values(await other) == [8]
    assert ask.memory._flights == {}


async def test_one_that_waits_may_leave() -> None:
    ask = Asked()
    first, gone, last = [await ask(b"a") for _ in range(3)]
    gone.cancel()
    await asyncio.wait([gone])
    ask.runs[0].ended.set_result(answers(7))
    assert gone.cancelled()
    assert values(await first + await last) == [7, 7]
    assert len(ask.runs) == 1


async def test_when_the_leader_leaves_the_first_that_waits_leads() -> None:
    ask = Asked()
    gone, *tasks = [await ask(b"a", deadline=10.0 + i) for i in range(4)]
    gone.cancel()
    await asyncio.wait([gone])
    await asyncio.sleep(0)
    assert [run.terms.deadline for run in ask.runs] == [10.0, 11.0]
    ask.runs[1].ended.set_result(answers(7))
    assert [values(await task) for task in tasks] == [[7]] * 3


@pytest.mark.parametrize(
    "error", [QueueFull("shed", 1.0), DeadlineExceeded("late"), InferenceFailed("failed"), MemoryError()]
)
async def test_a_leader_that_fails_fails_alone(error: Exception) -> None:
    ask = Asked()
    first, second, third = [await ask(b"a") for _ in range(3)]
    ask.runs[0].ended.set_exception(error)
    with pytest.raises(type(error)):
        await first
    await asyncio.sleep(0)
    assert len(ask.runs) == 2
    ask.runs[1].ended.set_result(answers(7))
    assert values(await second + await third) == [7, 7]


async def test_a_picture_s_own_fault_is_the_answer_to_all_and_not_remembered() -> None:
    ask = Asked()
    tasks = [await ask(b"a") for _ in range(3)]
    ask.runs[0].ended.set_exception(InvalidImage("damaged"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(error), str(error)) for error in errors] == [(InvalidImage, "damaged")] * 3
    assert len({id(error) for error in errors}) == 3
    await ask(b"a")
    assert len(ask.runs) == 2


@pytest.mark.parametrize("stricter", [{"priority": Priority.HIGH}, {"max_wait": 1.0}], ids=lambda terms: str(*terms))
async def test_nobody_waits_for_a_run_on_easier_terms(stricter: dict[str, float]) -> None:
    ask = Asked()
    easy, strict = await ask(b"a"), await ask(b"a", **stricter)  # type: ignore[arg-type] # one is a Priority
    assert len(ask.runs) == 2
    joined = [await ask(b"a", **stricter), await ask(b"a")]  # type: ignore[arg-type]
    assert len(ask.runs) == 2
    ask.runs[1].ended.set_result(answers(7))
    assert values(await strict) == [7]
    assert values(await joined[0]) == [7]
    ask.runs[0].ended.set_result(answers(7))
    assert values(await easy + await joined[1]) == [7, 7]


async def test_of_several_images_those_that_are_not_remembered_run() -> None:
    ask = Asked()
    known = await ask(b"b")
    ask.runs[0].ended.set_result(answers(2))
    await known
    task, same = await ask(b"a", b"b", b"c"), await ask(b"a", b"b", b"c")
    assert [run.numbers for run in ask.runs] == [[0], [0, 2]]
    ask.runs[1].ended.set_result(answers(1, 3))
    given = await task
    assert values(given) == values(await same) == [1, 2, 3]
    assert [answer.batch_size for answer in given] == [4, 0, 4]
    assert values(await (await ask(b"c", b"a"))) == [3, 1]
