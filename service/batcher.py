"""The asyncio shell round the batch queues of one or several devices: it decodes and runs what the policy says.

The rules:
- One batch runs on a device at a time, whichever model it is of. An idle device starts at once.
- An admission leases a row of pixels. The row is free again when the admission has ended *and* neither a decoder
  nor a running batch still touches it; so a client may vanish at any moment.
- Cancellation is the only way out early: a deadline and a gone client take the same path.
- A lane whose batches keep failing takes no more work until a probe of its own succeeds.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.batch_queue import Batch, BatchQueue, Priority, Ticket
from service.breaker import Breaker
from service.device_share import DeviceShare
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, ServiceError, Unavailable
from service.metrics import Metrics
from service.pixel_slab import PixelSlab
from service.tracing import BatchSpan, Stages

log = logging.getLogger("inferception")


class Runs(Protocol):
    """What a lane needs of a session."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 ``[n, height, width, 3]`` to probabilities ``[n, classes]``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Probabilities ``[classes]`` of one image, and what its batch was."""

    probabilities: NDArray[np.float32]
    batch_size: int
    queue_s: float
    infer_s: float


@dataclass(eq=False)
class Lane:
    """One model's way through the devices: its session on each, its queue, its pixels.

    ``probe`` runs one known image on a session in the calling thread, and raises unless the answer is right.
    """

    name: str
    sessions: Sequence[Runs]
    queue: BatchQueue[Admission]
    pixels: PixelSlab
    probe: Callable[[Runs], object]
    breaker: Breaker = field(default_factory=Breaker)


@dataclass(eq=False)
class Admission(Ticket):
    """A ticket with its row of pixels, and the future of its answer. Leave the ``with`` block to give all back."""

    _batcher: Batcher = field(kw_only=True)
    _lane: Lane = field(kw_only=True)
    row: int = field(kw_only=True)
    answer: asyncio.Future[Answer] = field(kw_only=True)
    decoded_at: float = field(default=0.0, init=False)
    _in_use: bool = field(default=False, init=False)  # a decoder or a batch touches the row
    _ended: bool = field(default=False, init=False)
    _stages: Stages = field(default_factory=Stages, init=False)

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended = True
        self._stages.end()
        self._lane.queue.remove(self)
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # retrieved, or asyncio would log it
        self._give_back_row()

    async def decode(self, decode: Callable[[NDArray[np.uint8]], None]) -> float:
        """Run ``decode`` on the row in a decoder thread; return the seconds it took. Its errors pass through."""
        self._in_use = True
        self._stages.enter("decode")
        work = asyncio.get_running_loop().run_in_executor(self._batcher.decoders, self._decode, decode)
        work.add_done_callback(lambda _: self.released_by_device())
        # A decoder that writes can't be stopped: the row stays its own until it ends.
        seconds = await asyncio.shield(work)
        self.decoded_at = time.perf_counter()
        return seconds

    def _decode(self, decode: Callable[[NDArray[np.uint8]], None]) -> float:
        if self.answer.done():  # shed, or its client gone, while it waited for a decoder
            return 0.0
        start = time.perf_counter()
        decode(self._lane.pixels[self.row])
        return time.perf_counter() - start

    async def infer(self) -> Answer:
        """Wait for the batch that this image joins. Raises what the batch raised, or QueueFull when shed."""
        self.decoded = True
        self._stages.enter("queue")
        self._batcher.start_if_idle()
        return await self.answer

    def taken_by_device(self, batch: BatchSpan) -> None:
        """Note that a batch reads the row."""
        self._in_use = True
        self._stages.enter("infer", batch)

    def released_by_device(self) -> None:
        """Note that decoder or batch is done with the row."""
        self._in_use = False
        self._give_back_row()

    def _give_back_row(self) -> None:
        if self._ended and not self._in_use and self.row >= 0:
            self._lane.pixels.give_back(self.row)
            self.row = -1


class Batcher:
    """Runs the batches of all lanes on one device, or on several, each with a session of every lane."""

    def __init__(self, decode_threads: int, metrics: Metrics, probe_interval_s: float, devices: int = 1) -> None:
        self._metrics = metrics
        self._probe_interval_s = probe_interval_s
        self.decoders = ThreadPoolExecutor(decode_threads, "decode")
        self._runners = [ThreadPoolExecutor(1, "infer") for _ in range(devices)]
        self._idle = deque(range(devices))
        self._share: DeviceShare[Lane] = DeviceShare(devices)

    def add(self, lane: Lane) -> None:
        """Serve one more model."""
        self._share.add(lane, lane.queue)

    def check(self, lane: Lane, deadline: float, priority: Priority) -> None:
        """Raise what ``admit`` would raise now. Costs nothing, so it comes before a body is read."""
        if lane.breaker.reason is not None:
            raise Unavailable(lane.breaker.reason)
        now = asyncio.get_running_loop().time()
        lane.queue.check(Ticket(deadline, priority), now, self._share.wait(lane, priority, now))

    def admit(self, lane: Lane, deadline: float, priority: Priority) -> Admission:
        """Take a place in the queue, or raise QueueFull, DeadlineUnmeetable or Unavailable. Use with ``with``."""
        if lane.breaker.reason is not None:
            raise Unavailable(lane.breaker.reason)
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = self._share.wait(lane, priority, now)
        row = lane.pixels.lease()
        if row is None:
            raise QueueFull("no memory for another picture", retry_after=wait)
        admission = Admission(deadline, priority, _batcher=self, _lane=lane, row=row, answer=loop.create_future())
        try:
            shed = lane.queue.offer(admission, now, wait)
        except ServiceError:
            lane.pixels.give_back(row)
            raise
        for victim in shed:
            victim.answer.set_exception(QueueFull("shed for a request of higher priority", retry_after=wait))
        return admission

    def start_if_idle(self) -> None:
        """Start the next batches, as long as there is a device that runs none."""
        while self._idle and self._start_next():
            pass

    def _start_next(self) -> bool:
        """Start the next batch on an idle device; return whether there was one."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (lane := self._share.next()) is not None:
            batch = lane.queue.take(now, self._share.longest(lane, now))
            for ticket in batch.dropped:
                if not ticket.answer.done():
                    ticket.answer.set_exception(DeadlineExceeded("no batch could have answered before the deadline"))
            if batch.tickets:
                break
        else:
            return False
        device = self._idle.popleft()
        span = BatchSpan(lane.name, len(batch.tickets), batch.size)
        for ticket in batch.tickets:
            ticket.taken_by_device(span)
        self._share.started(lane, batch.size, now, device)
        pixels = lane.pixels.batch([ticket.row for ticket in batch.tickets], batch.size, device)
        run = loop.run_in_executor(self._runners[device], lane.sessions[device].run, pixels)
        run.add_done_callback(functools.partial(self._finished, lane, device, batch, span, time.perf_counter()))
        return True

    def _finished(
        self,
        lane: Lane,
        device: int,
        batch: Batch[Admission],
        span: BatchSpan,
        started: float,
        run: asyncio.Future[NDArray[np.float32]],
    ) -> None:
        seconds = time.perf_counter() - started  # finer than the loop's clock
        self._idle.append(device)
        error = run.exception()
        if error is None and len(run.result()) != batch.size:
            error = InferenceFailed(f"{batch.size} images went in, {len(run.result())} answers came out")
        span.end(error)
        self._metrics.batches.labels(lane.name, "ok" if error is None else "failed").inc()
        self._metrics.batch_size.labels(lane.name).observe(len(batch.tickets))
        if error is None:
            self._metrics.predicted_seconds.labels(lane.name).inc(lane.queue.cost.seconds(batch.size))
            self._metrics.batch_seconds.labels(lane.name).inc(seconds)
            lane.queue.cost.observe(batch.size, seconds)
            lane.breaker.succeeded(device)
        elif lane.breaker.failed(str(error), device):
            self._give_up(lane)
        for i, ticket in enumerate(batch.tickets):
            ticket.released_by_device()
            if ticket.answer.done():
                continue  # its client left while the batch ran
            if error is not None:
                ticket.answer.set_exception(InferenceFailed(f"the model failed: {error}"))
            else:
                queued = started - ticket.decoded_at
                ticket.answer.set_result(Answer(run.result()[i], len(batch.tickets), queued, seconds))
        self.start_if_idle()

    def _give_up(self, lane: Lane) -> None:
        """Fail all that waits for a model that no longer works, and try the model again later."""
        reason = str(lane.breaker.reason)
        log.error("%s is not ready: %s", lane.name, reason)
        for ticket in lane.queue.clear():
            if not ticket.answer.done():
                ticket.answer.set_exception(Unavailable(reason))
        self._probe_later(lane)

    def _probe_later(self, lane: Lane) -> None:
        asyncio.get_running_loop().call_later(self._probe_interval_s, self._probe, lane)

    def _probe(self, lane: Lane, device: int = 0) -> None:
        # The runner's only thread keeps the probe from running beside a batch.
        probe = asyncio.get_running_loop().run_in_executor(self._runners[device], lane.probe, lane.sessions[device])
        probe.add_done_callback(functools.partial(self._probed, lane, device))

    def _probed(self, lane: Lane, device: int, probe: asyncio.Future[object]) -> None:
        if probe.cancelled():
            return
        if probe.exception() is not None:
            self._probe_later(lane)
            return
        if device + 1 < len(lane.sessions):
            self._probe(lane, device + 1)
            return
        lane.breaker.close()
        log.info("%s is ready again: its probe was answered right", lane.name)

    def close(self) -> None:
        """Stop the threads; what still waits for them is cancelled."""
        self.decoders.shutdown(cancel_futures=True)
        for runner in self._runners:
            runner.shutdown(cancel_futures=True)
