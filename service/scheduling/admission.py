"""One image's way to its answer: a place in a model's queue, a row of its pixels, a share in a batch.

The rules:
- An admission leases a row of pixels. The row is free again when the admission has ended *and* neither a decoder
  nor a running batch still touches it; so a client may vanish at any moment.
- Cancellation is the only way out early: a deadline and a gone client take the same path.
- An image that is alone may run in its decoder's thread: the event loop and a runner would have to wake up first.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import InferenceFailed
from service.scheduling.batch_queue import BatchQueue, Ticket
from service.scheduling.breaker import Breaker
from service.scheduling.pixel_slab import PixelSlab
from service.tracing import BatchSpan, Stages
from service.workers import Workers


class Runs(Protocol):
    """What a lane needs of a session."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 ``[n, height, width, 3]`` to probabilities ``[n, classes]``."""


Outcome = NDArray[np.float32] | BaseException  # of a batch: what it gave, or what it raised
Finished = Callable[[Outcome, float], None]  # and when it ended, on time.perf_counter


def run_batch(session: Runs, images: NDArray[np.uint8], loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
    """Run a batch in this thread; then ``finished`` is called on the loop."""
    outcome: Outcome
    try:
        outcome = session.run(images)
        if len(outcome) != len(images):
            outcome = InferenceFailed(f"{len(images)} images went in, {len(outcome)} answers came out")
    except BaseException as error:
        outcome = error
    loop.call_soon_threadsafe(finished, outcome, time.perf_counter())


class Answer(NamedTuple):
    """Probabilities ``[classes]`` of one image, and what its batch was."""

    probabilities: NDArray[np.float32]
    batch_size: int
    decode_s: float
    queue_s: float
    infer_s: float


@dataclass(eq=False)
class Lane:
    """One model's way through the devices: its session on each, its queue, its pixels.

    Where devices are streams of one CPU, ``whole`` is a session that takes all of them, for an image that is alone;
    without ``sessions`` every batch does. ``head_starts`` says that ``whole`` may run in any thread. ``probe`` runs one
    known image on a session in the calling thread, and raises unless the answer is right.
    """

    name: str
    sessions: Sequence[Runs]
    queue: BatchQueue[Admission]
    pixels: PixelSlab
    probe: Callable[[Runs], object]
    breaker: Breaker = field(default_factory=Breaker)
    whole: Runs | None = None
    head_starts: bool = False


@dataclass(eq=False)
class HeadStart:
    """The right of an image that is alone to run on ``session``, for about ``seconds``, once it is decoded.

    Whoever takes it first has it: the image's decoder, or the loop to let another image run. The loop isn't told which,
    for it would wake up beside the threads that run the image: it looks when it has to know, and hears of the end.
    """

    session: Runs
    seconds: float
    finished: Finished
    image: Admission = field(init=False)  # that runs, if its decoder has taken it
    _taken: threading.Lock = field(default_factory=threading.Lock)

    @property
    def taken(self) -> bool:
        """Whether someone has it."""
        return self._taken.locked()

    def take(self) -> bool:
        """Take it; return False when the decoder or the loop had taken it before."""
        return self._taken.acquire(blocking=False)


@dataclass(eq=False)
class Admission(Ticket):
    """A ticket with its row of pixels, and the future of its answer. Leave the ``with`` block to give all back."""

    lane: Lane = field(kw_only=True)
    _decoders: Workers = field(kw_only=True)
    _wants_batch: Callable[[], None] = field(kw_only=True)
    row: int = field(kw_only=True)
    answer: asyncio.Future[Answer] = field(kw_only=True)
    head_start: HeadStart | None = field(default=None, init=False)
    decode_s: float = field(default=0.0, init=False)
    decoded_at: float = field(default=0.0, init=False)
    _in_use: bool = field(default=False, init=False)  # a decoder or a batch touches the row
    _ended: bool = field(default=False, init=False)
    _to_decode: Callable[[NDArray[np.uint8]], None] | None = field(default=None, init=False)
    _stages: Stages = field(default_factory=Stages, init=False)

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended = True
        self._to_decode = None  # the encoded image goes now, not when a decoder gets to it
        self.head_start = None  # it leads back here
        self._stages.end()
        self.lane.queue.remove(self)
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # retrieved, or asyncio would log it
        self._give_back_row()

    async def run(self, decode: Callable[[NDArray[np.uint8]], None]) -> Answer:
        """Run ``decode`` on the row in a decoder thread, and wait for the batch that the image then joins.

        Raises what ``decode`` or the batch raised, QueueFull when shed, DeadlineExceeded when dropped, Unavailable when
        the model is given up.
        """
        self._in_use = True  # until the decoder ends: one that writes can't be stopped
        self._stages.enter("decode", time.perf_counter())
        self._to_decode = decode
        self._decoders.submit(functools.partial(self._decode_and_run, asyncio.get_running_loop()))
        return await self.answer

    def _decode_and_run(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a decoder's thread: decode, and with a head start run. All else is done on the loop."""
        decode, error = self._to_decode, None
        if decode is not None and not self.answer.done():  # else shed, or its client gone, while it waited
            pixels, start = self.lane.pixels[self.row], time.perf_counter()
            try:
                decode(pixels)
            except BaseException as raised:
                error = raised
            else:
                self.decoded_at = time.perf_counter()
                self.decode_s = self.decoded_at - start
                del decode  # the encoded image, unless the admission holds it still
                if (head_start := self._taken_head_start()) is not None:
                    run_batch(head_start.session, pixels[np.newaxis], loop, head_start.finished)
                    return
        loop.call_soon_threadsafe(self._decoded, error)

    def _taken_head_start(self) -> HeadStart | None:
        """Take the head start if there is one and it is of use."""
        head_start = self.head_start
        if head_start is None or self.answer.done():
            return None
        if time.monotonic() + head_start.seconds > self.deadline:  # loop.time() is for the loop's thread alone
            return None
        head_start.image = self  # first: it has to be there once the loop can see that this is taken
        return head_start if head_start.take() else None

    def _decoded(self, error: BaseException | None) -> None:
        self.released_by_device()
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.decoded = True
            self._stages.enter("queue", self.decoded_at)
            self._wants_batch()

    def taken_by_device(self, batch: BatchSpan, since: float) -> None:
        """Note that a batch reads the row, ``since`` on ``time.perf_counter``."""
        self._in_use = True
        if self._ended:  # with a head start a client may leave before the loop knows that its image runs
            return
        if not self.decoded:
            self._stages.enter("queue", since)  # for no time: it had a head start
        self._stages.enter("infer", since, batch)

    def answered(self, outcome: Outcome, row: int, images: int, started: float, ended: float) -> None:
        """Give whoever waits their ``row`` of what a batch of so many ``images`` gave, or what it raised."""
        if self.answer.done():
            return  # given before, or the client left while the batch ran
        if isinstance(outcome, BaseException):
            self.answer.set_exception(InferenceFailed(f"the model failed: {outcome}"))
        else:
            queued = started - self.decoded_at
            self.answer.set_result(Answer(outcome[row], images, self.decode_s, queued, ended - started))

    def released_by_device(self) -> None:
        """Note that decoder or batch is done with the row."""
        self._in_use = False
        self._give_back_row()

    def _give_back_row(self) -> None:
        if self._ended and not self._in_use and self.row >= 0:
            self.lane.pixels.give_back(self.row)
            self.row = -1
