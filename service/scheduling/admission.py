"""One image's way to its answer: a ticket in the queue, a row of pixels, a share in a batch.

The rules:
- An admission leases a row of pixels. The row is free again when the admission has ended *and* neither a decoder
  nor a running batch touches the row any more. So a client may leave at any moment.
- Cancellation is the only way out early: a deadline and a client that left take the same path.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.scheduling.batch_queue import Ticket
from service.scheduling.pixel_slab import PixelSlab
from service.tracing import Span, Stages

log = logging.getLogger("inferception")

T = TypeVar("T")
Decode = Callable[[NDArray[np.uint8]], None]  # writes an image into its row, uint8 [height, width, 3]


class _AtOnce(Executor):
    """Runs what is submitted in the caller's thread."""

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done = Future[T]()
        done.set_result(work(*args, **kwargs))
        return done


AT_ONCE = _AtOnce()  # for pixels, which are copied in less time than a thread takes to wake up


class Decoding(NamedTuple):
    """What writes one image into its row, and the threads in which it does."""

    where: Executor
    decode: Decode


@dataclass(frozen=True)
class Answer:
    """Probabilities ``[classes]`` of one image, how many images its batch had, and the seconds that each stage took.

    The batch of a remembered answer had 0 images.
    """

    probabilities: NDArray[np.float32]
    batch_size: int
    stages: dict[str, float]  # cache where answers are remembered, and decode, queue, infer of an image that ran


@dataclass(eq=False)
class Admission:
    """An admitted image, whose row of ``pixels`` a decoder touches first."""

    ticket: Ticket
    pixels: PixelSlab
    row: int
    answer: asyncio.Future[Answer]
    decode: Decode | None  # None once nobody waits for the answer
    decoding: Future[None] | None = field(default=None, init=False)  # the call that waits for a decoder's thread
    _touched: bool = field(default=False, init=False)  # by a decoder or a batch: neither stops at once
    stages: Stages = field(default_factory=Stages, init=False)
    decode_s: float = field(default=0.0, init=False)
    decoded_at: float = field(default=0.0, init=False)  # on time.perf_counter

    def decode_row(self) -> Exception | None:
        """Decode in a decoder's thread. Return what was raised, without the frames, which would keep the picture."""
        decode = self.decode
        if decode is None or self.answer.done():
            return None  # it was shed or its client left as this call began
        start = time.perf_counter()
        try:
            decode(self.pixels[self.row])
        except (ServiceError, MemoryError) as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except BaseException as error:
            log.exception("decoding an image failed")
            return RuntimeError(f"decoding failed: {error!r}")
        self.decoded_at = time.perf_counter()
        self.decode_s = self.decoded_at - start
        return None

    def touch(self, stage: str, batch: Span | None = None) -> None:
        """Note that a decoder or a batch uses the row from now on, for ``stage``."""
        self._touched = True
        self.stages.enter(stage, batch)

    def let_go(self) -> None:
        """Note that the decoder or the batch is done with the row."""
        self._touched = False
        if self.decode is None:
            self.pixels.give_back(self.row)

    def leave(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.decode = None
        if self.decoding is not None and self.decoding.cancel():  # it has not begun
            self._touched = False
        self.stages.end()
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # asyncio logs an exception that nobody retrieved
        if not self._touched:
            self.pixels.give_back(self.row)

    def succeed(self, probabilities: NDArray[np.float32], batch_size: int, started: float, ended: float) -> None:
        """Give the answer to whoever waits for it. Times are on ``time.perf_counter``."""
        if not self.answer.done():  # the client may have left while the batch ran
            stages = {"decode": self.decode_s, "queue": started - self.decoded_at, "infer": ended - started}
            self.answer.set_result(Answer(probabilities, batch_size, stages))

    def fail(self, error: Exception) -> None:
        """Let whoever waits for the answer get ``error``."""
        if not self.answer.done():
            self.answer.set_exception(error)
