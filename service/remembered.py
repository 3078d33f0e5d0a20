"""Remembers the answers of one version, so that an image that comes again, or comes several times at once, runs once.

The rules:
- An image is known by a hash of its bytes. Each version remembers for itself, and forgets all when it is retired.
- Of requests for the same images at a time one runs, and leads a flight. The others wait for the flight.
- A request waits only for a flight whose priority and longest wait are as strict as its own, or stricter. Its own
  deadline ends its wait. The flight's deadline does not matter, because the flight is before the request in the queue.
- A flight that ends without an answer sets those that waited free: the first leads the next flight. Only a picture's
  own fault is the answer to all of them. No fault is remembered.
"""

import asyncio
import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.inference.decoder_process import FAULTS
from service.inference.picture_cost import Encoded
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Terms

Image = Encoded | NDArray[np.uint8]  # a picture's file, or pixels [height, width, 3]
Keys = tuple[bytes, ...]  # one for each image of a request

_OVERHEAD = 216  # bytes that the dictionary takes for an entry at most, and what memory is rounded up by
_AT_ONCE = 500_000  # bytes that the event loop hashes itself, in about half a millisecond (python -m bench cache)


@dataclass(eq=False)
class Flight:
    """A request that runs on ``terms``. When ``ended`` is set, it has found all probabilities, a fault or nothing."""

    terms: Terms
    ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    found: Sequence[bytes | None] | None = field(default=None, init=False)  # all of them, or None
    fault: tuple[type[ServiceError], str] | None = field(default=None, init=False)


class Remembered:
    """The answers of a version with ``classes`` classes, in ``most_bytes`` bytes of memory at most."""

    def __init__(self, classes: int, most_bytes: int) -> None:
        self._entry_bytes = sys.getsizeof(bytes(32)) + sys.getsizeof(bytes(4 * classes)) + _OVERHEAD
        self._most = most_bytes // self._entry_bytes
        self._probabilities: OrderedDict[bytes, bytes] = OrderedDict()  # float32; the one used last is last
        self._flights: dict[Keys, list[Flight]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the remembered answers take."""
        return len(self._probabilities) * self._entry_bytes

    def find(self, key: bytes) -> bytes | None:
        """Return what ``remember`` got for ``key``, or None."""
        if key in self._probabilities:
            self._probabilities.move_to_end(key)
        return self._probabilities.get(key)

    def remember(self, key: bytes, probabilities: bytes) -> None:
        """Keep the bytes of float32 ``[classes]``, and forget what has not been used for longest if memory is short."""
        self._probabilities[key] = probabilities
        self._probabilities.move_to_end(key)
        if len(self._probabilities) > self._most:
            self._probabilities.popitem(last=False)

    def flight(self, keys: Keys, terms: Terms) -> Flight | None:
        """Return a flight that a request on ``terms`` may wait for."""
        for flight in self._flights.get(keys, ()):
            if flight.terms.priority <= terms.priority and flight.terms.max_wait <= terms.max_wait:
                return flight
        return None

    @contextmanager
    def leading(self, keys: Keys, terms: Terms) -> Iterator[Flight]:
        """Let others wait for what the block finds."""
        flight, flights = Flight(terms), self._flights.setdefault(keys, [])
        flights.append(flight)
        try:
            yield flight
        except tuple(FAULTS.values()) as error:
            flight.fault = type(error), str(error)  # not the error, whose frames hold the picture
            raise
        finally:
            flights.remove(flight)
            if not flights:
                del self._flights[keys]
            flight.ended.set()

    async def answers(
        self, images: Sequence[Image], terms: Terms, run: Callable[[Sequence[int]], Awaitable[Sequence[Answer]]]
    ) -> list[Answer]:
        """Return the answers to all images of a request. ``run`` classifies the images of the numbers that it gets.

        A remembered answer came in a batch of 0 images. Its only stage is ``cache``: hashing, looking up and waiting.
        Raises what ``run`` raises, here or in the flight that this request waits for.
        """
        start = time.perf_counter()
        keys = await _keys(images)
        found = await self._found(keys, terms)
        stages = {"cache": time.perf_counter() - start}
        answers = {
            number: Answer(np.frombuffer(one, np.float32), 0, stages)
            for number, one in enumerate(found)
            if one is not None
        }
        if missing := [number for number in range(len(keys)) if number not in answers]:
            with self.leading(keys, terms) as flight:
                for number, answer in zip(missing, await run(missing), strict=True):
                    answers[number] = replace(answer, stages=stages | answer.stages)
                    found[number] = one = answer.probabilities.tobytes()  # a row of its batch would keep the batch
                    self.remember(keys[number], one)
                flight.found = found
        return [answers[number] for number in range(len(keys))]

    async def _found(self, keys: Keys, terms: Terms) -> list[bytes | None]:
        """Return what is remembered, once there is no flight to wait for."""
        found = [self.find(key) for key in keys]
        while None in found and (flight := self.flight(keys, terms)) is not None:
            await flight.ended.wait()
            if flight.fault is not None:
                kind, text = flight.fault
                raise kind(text)
            found = list(flight.found or map(self.find, keys))
        return found


async def _keys(images: Sequence[Image]) -> Keys:
    if sum(_view(image).nbytes for image in images) <= _AT_ONCE:
        return _hashed(images)
    return await asyncio.to_thread(_hashed, images)


def _hashed(images: Sequence[Image]) -> Keys:
    return tuple(_hash(image) for image in images)


def _hash(image: Image) -> bytes:
    """Return 256 bits, so that nobody can make two images that share an answer."""
    kind = b"pixels" if isinstance(image, np.ndarray) else b"file"
    return hashlib.blake2b(_view(image), digest_size=32, person=kind).digest()


def _view(image: Image) -> memoryview:
    return image.data.cast("B") if isinstance(image, np.ndarray) else memoryview(image)
