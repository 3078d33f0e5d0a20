"""The asyncio shell round the batch queues of one or several devices: it decodes and runs what the policy says.

The rules:
- One batch runs on a device at a time, whichever model it is of. An idle device starts at once.
- A lane whose batches keep failing takes no more work until a probe of its own succeeds.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.admission import Admission, Answer, Lane
from service.batch_queue import Batch, Priority, Ticket
from service.device_share import DeviceShare
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, ServiceError, Unavailable
from service.metrics import Metrics
from service.tracing import BatchSpan

log = logging.getLogger("inferception")


class Batcher:
    """Runs the batches of all lanes on one device, or on several, each with a session of every lane."""

    def __init__(self, decode_threads: int, metrics: Metrics, probe_interval_s: float, devices: int = 1) -> None:
        self._metrics = metrics
        self._probe_interval_s = probe_interval_s
        self._decoders = ThreadPoolExecutor(decode_threads, "decode")
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
        admission = Admission(
            deadline,
            priority,
            _lane=lane,
            _decoders=self._decoders,
            _wants_batch=self._start_if_idle,
            row=row,
            answer=loop.create_future(),
        )
        try:
            shed = lane.queue.offer(admission, now, wait)
        except ServiceError:
            lane.pixels.give_back(row)
            raise
        for victim in shed:
            victim.answer.set_exception(QueueFull("shed for a request of higher priority", retry_after=wait))
        return admission

    def _start_if_idle(self) -> None:
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
        finished = functools.partial(self._finished, lane, device, batch, span, time.perf_counter())
        run = self._runners[device].submit(lane.sessions[device].run, pixels)
        # Straight back to the loop: run_in_executor's future would take another turn of it.
        run.add_done_callback(functools.partial(loop.call_soon_threadsafe, finished))
        return True

    def _finished(
        self,
        lane: Lane,
        device: int,
        batch: Batch[Admission],
        span: BatchSpan,
        started: float,
        run: Future[NDArray[np.float32]],
    ) -> None:
        seconds = time.perf_counter() - started  # finer than the loop's clock
        self._idle.append(device)
        error = run.exception()
        if error is None and len(run.result()) != batch.size:
            error = InferenceFailed(f"{batch.size} images went in, {len(run.result())} answers came out")
        span.end(error)
        predicted = lane.queue.cost.seconds(batch.size)
        if error is None:
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
        self._start_if_idle()
        # Once the answers are on their way.
        asyncio.get_running_loop().call_soon(self._count, lane, batch, error, predicted, seconds)

    def _count(
        self, lane: Lane, batch: Batch[Admission], error: BaseException | None, predicted: float, seconds: float
    ) -> None:
        self._metrics.batches.labels(lane.name, "ok" if error is None else "failed").inc()
        self._metrics.batch_size.labels(lane.name).observe(len(batch.tickets))
        if error is None:
            self._metrics.predicted_seconds.labels(lane.name).inc(predicted)
            self._metrics.batch_seconds.labels(lane.name).inc(seconds)

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
        self._decoders.shutdown(cancel_futures=True)
        for runner in self._runners:
            runner.shutdown(cancel_futures=True)
