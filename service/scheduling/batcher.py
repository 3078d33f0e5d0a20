"""The asyncio shell round the batch queues of one or several devices: it decodes and runs what the policy says.

The rules:
- One batch runs on a device at a time, whichever model it is of. An idle device starts at once, unless the model whose
  turn it is needs all of them.
- Streams of one CPU are devices that slow each other down. So an image that is alone has all of them, and all threads.
  Of several that wait, an idle stream takes its share and leaves the others theirs: small batches side by side give
  about as much as large ones in turn, and fewer images wait for others of their batch. Nor does any wait for another
  stream's threads, which decoding and the event loop interrupt all the time.
- An image with a head start has all devices from the moment at which its decoder takes it. The loop catches up with
  that before it decides anything.
- A lane whose batches keep failing takes no more work until a probe of its own succeeds.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Sequence

from service import tracing
from service.errors import DeadlineExceeded, QueueFull, ServiceError, Unavailable
from service.metrics import Metrics
from service.scheduling.admission import Admission, Finished, HeadStart, Lane, Outcome, Runs, run_batch
from service.scheduling.batch_queue import Batch, Priority, Ticket
from service.scheduling.fair_share import DeviceShare
from service.tracing import BatchSpan
from service.workers import Workers

log = logging.getLogger("inferception")


class Batcher:
    """Runs the batches of all lanes on one device, or on several, each with a session of every lane."""

    _head_start_finished: Finished  # while the loop knows that the image runs

    def __init__(self, decode_threads: int, metrics: Metrics, probe_interval_s: float, devices: int = 1) -> None:
        self._devices = devices
        self._metrics = metrics
        self._probe_interval_s = probe_interval_s
        self._decoders = Workers(decode_threads, "decode")
        self._runners = [Workers(1, "infer") for _ in range(devices)]
        self._idle = deque(range(devices))
        self._share: DeviceShare[Lane] = DeviceShare(devices)
        self._head_start: HeadStart | None = None  # until withdrawn, or the loop knows that its image runs

    def add(self, lane: Lane) -> None:
        """Serve one more model."""
        self._share.add(lane, lane.queue, holds=1 if lane.sessions else self._devices)

    def check(self, lane: Lane, deadline: float, priority: Priority) -> None:
        """Raise what ``admit`` would raise now. Costs nothing, so it comes before a body is read."""
        if lane.breaker.reason is not None:
            raise Unavailable(lane.breaker.reason)
        self.catch_up()
        now = asyncio.get_running_loop().time()
        wait = self._share.wait(lane, priority, now)
        lane.queue.check(Ticket(deadline, priority), now, wait, alone=self._would_be_alone(lane))

    def admit(self, lane: Lane, deadline: float, priority: Priority) -> Admission:
        """Take a place in the queue, or raise QueueFull, DeadlineUnmeetable or Unavailable. Use with ``with``."""
        if lane.breaker.reason is not None:
            raise Unavailable(lane.breaker.reason)
        self.catch_up()
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = self._share.wait(lane, priority, now)
        row = lane.pixels.lease()
        if row is None:
            raise QueueFull("no memory for another picture", retry_after=wait)
        admission = Admission(
            deadline,
            priority,
            lane=lane,
            _decoders=self._decoders,
            _wants_batch=self._start_if_idle,
            row=row,
            answer=loop.create_future(),
        )
        alone = self._would_be_alone(lane)
        try:
            shed = lane.queue.offer(admission, now, wait, alone=alone)
        except ServiceError:
            lane.pixels.give_back(row)
            raise
        for victim in shed:
            if not victim.answer.done():  # it failed or left in this very turn
                victim.answer.set_exception(QueueFull("shed for a request of higher priority", retry_after=wait))
        if alone and lane.head_starts:
            admission.head_start = self._grant_head_start(lane)
        return admission

    def _would_be_alone(self, lane: Lane) -> bool:
        """Return whether a newcomer to ``lane`` would find nothing that runs or waits there."""
        return len(self._idle) == self._devices and not len(lane.queue)

    def _grant_head_start(self, lane: Lane) -> HeadStart | None:
        """Let an image that is alone run on all streams as soon as it is decoded.

        One at a time has that right, the last; the one before may be gone.
        """
        self._withdraw_head_start()
        if lane.whole is None or not self._idle:
            return None
        self._head_start = HeadStart(lane.whole, self._share.seconds(lane, 1, self._devices), self._ran_ahead)
        return self._head_start

    def _withdraw_head_start(self) -> None:
        """Take back what was granted, unless its image runs already."""
        if self._head_start is not None and self._head_start.take():
            self._head_start = None
        self.catch_up()

    def catch_up(self) -> None:
        """Know of the image that runs because it had a head start, if there is one: it has all devices."""
        if self._head_start is None or not self._head_start.taken:
            return
        image, self._head_start = self._head_start.image, None
        devices = list(self._idle)  # all of them: nothing else could start
        self._idle.clear()
        image.lane.queue.remove(image)
        self._head_start_finished = self._note_start(image.lane, devices, Batch([image], 1, []), image.decoded_at)

    def _ran_ahead(self, outcome: Outcome, ended: float) -> None:
        if tracing.is_on():
            self.catch_up()  # the image's spans must be there before its request ends
        if self._head_start is None:  # the loop knows that the image ran, and others may wait for its end
            self._head_start_ended(outcome, ended)
        else:
            image, loop = self._head_start.image, asyncio.get_running_loop()
            image.answered(outcome, 0, 1, image.decoded_at, ended)
            # All else once the answer is on its way: uvloop writes when all that is ready has run.
            loop.call_soon(loop.call_soon, self._head_start_ended, outcome, ended)

    def _head_start_ended(self, outcome: Outcome, ended: float) -> None:
        self.catch_up()
        finished = self._head_start_finished
        del self._head_start_finished  # it leads to the image
        finished(outcome, ended)

    def _start_if_idle(self) -> None:
        """Start the next batches, as long as there is a device that runs none."""
        self._withdraw_head_start()
        while self._idle and self._start_next():
            pass

    def _start_next(self) -> bool:
        """Start the next batch on an idle device; return whether there was one."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (lane := self._share.next()) is not None:
            if not (lane.sessions or len(self._idle) == self._devices):
                return False  # nor does another model's batch start before it
            whole = self._takes_all(lane)
            streams = 1 if whole or lane.whole is None else self._devices
            batch = lane.queue.take(now, self._share.longest(lane, now), alone=whole, streams=streams)
            for ticket in batch.dropped:
                if not ticket.answer.done():
                    ticket.answer.set_exception(DeadlineExceeded("no batch could have answered before the deadline"))
            if batch.tickets:
                break
        else:
            return False
        devices = [self._idle.popleft() for _ in range(self._devices if whole else 1)]
        session = lane.whole if whole and lane.whole is not None else lane.sessions[devices[0]]
        pixels = lane.pixels.batch([ticket.row for ticket in batch.tickets], batch.size, devices[0])
        finished = self._note_start(lane, devices, batch, time.perf_counter())
        self._runners[devices[0]].submit(functools.partial(run_batch, session, pixels, loop, finished))
        return True

    def _note_start(self, lane: Lane, devices: Sequence[int], batch: Batch[Admission], started: float) -> Finished:
        """Note what runs since ``started``, on ``time.perf_counter``; return what to call with its outcome."""
        span = BatchSpan(lane.name, len(batch.tickets), batch.size, started)
        for ticket in batch.tickets:
            ticket.taken_by_device(span, started)
        ago = time.perf_counter() - started
        self._share.started(lane, batch.size, asyncio.get_running_loop().time() - ago, devices)
        return functools.partial(self._finished, lane, devices, batch, span, started)

    def _takes_all(self, lane: Lane) -> bool:
        """Return whether the next batch of ``lane`` gets all streams: an image that is alone, or a lane without any."""
        if lane.whole is None or len(self._idle) < self._devices:
            return False
        return not lane.sessions or lane.queue.ready == 1

    def _finished(
        self,
        lane: Lane,
        devices: Sequence[int],
        batch: Batch[Admission],
        span: BatchSpan,
        started: float,
        outcome: Outcome,
        ended: float,
    ) -> None:
        self._idle.extend(devices)
        error = outcome if isinstance(outcome, BaseException) else None
        if error is not None and lane.breaker.failed(str(error), self._breaker_device(devices)):
            self._give_up(lane)
        for i, ticket in enumerate(batch.tickets):
            ticket.released_by_device()
            ticket.answered(outcome, i, len(batch.tickets), started, ended)
        # After the answers, which don't wait for it; before what starts now can have finished.
        asyncio.get_running_loop().call_soon(self._record, lane, devices, batch, span, ended - started, error)
        self._start_if_idle()

    def _record(
        self,
        lane: Lane,
        devices: Sequence[int],
        batch: Batch[Admission],
        span: BatchSpan,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        span.end(error)
        self._metrics.batches.labels(lane.name, "ok" if error is None else "failed").inc()
        self._metrics.batch_size.labels(lane.name).observe(len(batch.tickets))
        if error is None:
            lane.breaker.succeeded(self._breaker_device(devices))
            predicted = self._share.seconds(lane, batch.size, len(devices))
            lane.queue.cost.observe(batch.size, lane.queue.cost.seconds(batch.size) * seconds / predicted)
            self._metrics.predicted_seconds.labels(lane.name).inc(predicted)
            self._metrics.batch_seconds.labels(lane.name).inc(seconds)

    def _breaker_device(self, devices: Sequence[int]) -> int:
        """Return the number under which a breaker counts ``devices``; all of them together have one of their own."""
        return devices[0] if len(devices) == 1 else self._devices

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

    def _probe(self, lane: Lane, number: int = 0) -> None:
        session = _every(lane)[number]
        loop = asyncio.get_running_loop()

        def probe() -> None:
            try:
                lane.probe(session)
            except BaseException:
                loop.call_soon_threadsafe(self._probe_later, lane)
            else:
                loop.call_soon_threadsafe(self._probed, lane, number)

        # In the runner's only thread, so not beside a batch of this device; another model may have all of them.
        self._runners[number % self._devices].submit(probe)

    def _probed(self, lane: Lane, number: int) -> None:
        if number + 1 < len(_every(lane)):
            self._probe(lane, number + 1)
        else:
            lane.breaker.close()
            log.info("%s is ready again: its probe was answered right", lane.name)

    def close(self) -> None:
        """Stop the threads, once they have done what waits for them."""
        for workers in (self._decoders, *self._runners):
            workers.close()


def _every(lane: Lane) -> Sequence[Runs]:
    return lane.sessions if lane.whole is None else [*lane.sessions, lane.whole]
