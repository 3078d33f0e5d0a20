"""What the photos show, in their order, with a bounded number of them being asked about at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.classify_photos.photos import read
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    ImageTooLarge,
    InferenceFailed,
    InvalidImage,
    Overloaded,
    UnsupportedType,
)
from service.inference.manifest import Prediction

# What is wrong with one photo. Any other error would meet the next photo, too.
_FAULTS = (InvalidImage, ImageTooLarge, UnsupportedType, BodyTooLarge, DeadlineExceeded, InferenceFailed)
_AHEAD = 8  # times as many photos as are asked about: the others go on while one takes long


@dataclass(frozen=True)
class Answer:
    """The most probable classes of one photo, by one version of a model."""

    model: str
    version: int
    trained: bool
    predictions: Sequence[Prediction]


class Model(NamedTuple):
    """Whom to ask: ``ask`` takes a photo's file, and at most ``at_a_time`` photos at a time."""

    ask: Callable[[bytes], Awaitable[Answer]]
    at_a_time: int


class Row(NamedTuple):
    """A photo's path, and its answer or what is wrong with the photo."""

    path: str
    outcome: Answer | str


async def rows(photos: Iterable[str], model: Model, most_bytes: int) -> AsyncGenerator[Row, None]:
    """Ask about photos, and yield their rows in order. A photo that the model refuses for now is asked about again.

    Raises a ServiceError that is not the fault of one photo, after the rows before it.
    """
    slots = asyncio.Semaphore(model.at_a_time)
    asked: deque[asyncio.Task[Row]] = deque()

    async def row(path: str) -> Row:
        async with slots:
            return await _row(path, model, most_bytes)

    try:
        for path in photos:
            asked.append(asyncio.create_task(row(path)))
            if len(asked) > _AHEAD * model.at_a_time:
                yield await asked.popleft()
        while asked:
            yield await asked.popleft()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _row(path: str, model: Model, most_bytes: int) -> Row:
    try:
        data = await asyncio.to_thread(read, path, most_bytes)
        while True:
            try:
                return Row(path, await model.ask(data))
            except Overloaded as error:
                await asyncio.sleep(error.retry_after)
    except _FAULTS as error:
        return Row(path, str(error))
