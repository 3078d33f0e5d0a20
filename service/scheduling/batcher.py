"""The asyncio shell round the scheduler: its threads decode and run what the scheduler says, and its futures answer."""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service import tracing
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, Unavailable
from service.metrics import Metrics
from service.scheduling.admission import Admission, Answer, Decode, Decoding
from service.scheduling.batch_queue import Terms, Ticket
from service.scheduling.pixel_slab import PixelSlab
from service.scheduling.scheduler import Model, Run, Scheduler, Trial
from service.sessions import Session
from service.statistics import Statistics

log = logging.getLogger("inferception")
T = TypeVar("T")


@dataclass(eq=False)
class Served:
    """A model with its rows and what it did. ``probe`` blocks, and raises unless every session answers right."""

    model: Model
    pixels: PixelSlab
    probe: Callable[[], object]
    statistics: Statistics = field(default_factory=Statistics)


def _run(session: Session, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32] | Exception, float, float]:
    """Run a batch in a runner's thread. Return what it gave or raised, its start and its end on ``perf_counter``."""
    started = time.perf_counter()
    try:
        probabilities = session.run(pixels)
        if len(probabilities) != len(pixels):
            raise InferenceFailed(f"{len(pixels)} images went in, {len(probabilities)} answers came out")
    except MemoryError as error:
        return error.with_traceback(None), started, time.perf_counter()
    except BaseException as error:
        log.exception("a batch failed")
        return InferenceFailed(f"the model failed: {error}"), started, time.perf_counter()
    return probabilities, started, time.perf_counter()


def _then(loop: asyncio.AbstractEventLoop, work: Callable[[], T], finish: Callable[[T], None]) -> None:
    """Run ``work``, which never raises, in this thread. Then give what it returned to ``finish`` on the loop."""
    loop.call_soon_threadsafe(finish, work())


class Batcher:
    """Decodes images and runs the batches of all models. All methods are for the event loop's thread."""

    def __init__(self, metrics: Metrics, probe_interval_s: float) -> None:
        self.scheduler = Scheduler()
        self._metrics = metrics
        self._probe_interval_s = probe_interval_s
        self._runners: list[ThreadPoolExecutor] = []
        self._served: dict[Model, Served] = {}
        self._admissions: dict[Ticket, Admission] = {}
        self._trials: dict[Trial, asyncio.Event] = {}
        self._probes: dict[Model, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()  # set when a ticket or a batch has ended
        self._add_runners()

    def add(self, served: Served) -> None:
        """Serve one more model."""
        self._served[served.model] = served
        self.scheduler.add(served.model)
        self._add_runners()

    async def remove(self, served: Served) -> None:
        """Forget a model, once all that waits for it is answered and its last batch has ended."""
        model = served.model
        while len(model.queue) or model.running:
            self._ended.clear()
            await self._ended.wait()
        if probe := self._probes.pop(model, None):
            probe.cancel()
        self.scheduler.remove(model)
        del self._served[model]

    def check(self, served: Served, terms: Terms) -> None:
        """Raise what ``classify`` would raise at once. This costs little, so it comes before a body is read."""
        self.scheduler.check(served.model, terms, asyncio.get_running_loop().time())

    async def classify(self, served: Served, decodings: Sequence[Decoding], terms: Terms) -> list[Answer]:
        """Decode images into rows, and wait for the batches that the images then join. One failure fails all of them.

        Raises at once QueueFull, DeadlineUnmeetable or Unavailable. Raises later what decoding raised,
        InferenceFailed, QueueFull when an image is shed, DeadlineExceeded when it is dropped, Unavailable when its
        model is given up.
        """
        loop = asyncio.get_running_loop()
        admissions = self._admit(served, [decoding.decode for decoding in decodings], terms)
        try:
            for admission, decoding in zip(admissions, decodings, strict=True):
                admission.touch("decode")
                finish = functools.partial(self._finish_decoding, admission)
                admission.decoding = decoding.where.submit(_then, loop, admission.decode_row, finish)
            return await asyncio.gather(*(admission.answer for admission in admissions))
        finally:
            for admission in admissions:
                admission.leave()
                self.scheduler.cancel(admission.ticket)
                del self._admissions[admission.ticket]
            self._ended.set()
            del admissions, admission, finish  # or an error would lead to this frame, and this frame to the error

    async def try_out(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a runner's thread while no batch runs. Return what it returns, raise what it raises."""
        loop, trial, started = asyncio.get_running_loop(), Trial(), asyncio.Event()
        self._trials[trial] = started
        self.scheduler.try_out(trial)
        self._start()
        try:
            await started.wait()
            running = loop.run_in_executor(self._runners[0], work)
        except BaseException:
            self._end_trial(trial)
            raise
        running.add_done_callback(lambda _: self._end_trial(trial))
        try:
            return await asyncio.shield(running)  # the work goes on, and holds its slots, when the caller is cancelled
        finally:
            del running  # or an error would lead to this frame, and this frame to the error

    def close(self) -> None:
        """Stop the threads, once they have done what waits for them."""
        for probe in self._probes.values():
            probe.cancel()
        for runner in self._runners:
            runner.shutdown()

    def _add_runners(self) -> None:
        for number in range(len(self._runners), self.scheduler.slots):
            runner = ThreadPoolExecutor(1, f"infer-{number}")
            runner.submit(int)  # the thread starts now: a thread that cannot start must not fail a batch
            self._runners.append(runner)

    def _end_trial(self, trial: Trial) -> None:
        del self._trials[trial]
        self.scheduler.tried_out(trial, asyncio.get_running_loop().time())
        self._start()

    def _admit(self, served: Served, decodes: Sequence[Decode], terms: Terms) -> list[Admission]:
        """Take a place in the queue and a row for each image, or none for any."""
        loop = asyncio.get_running_loop()
        wait = self.scheduler.wait(served.model, terms.priority, loop.time())
        if served.pixels.free < len(decodes):
            raise QueueFull("no memory for another picture", retry_after=wait)
        tickets, shed = self.scheduler.admit(served.model, terms, loop.time(), len(decodes))
        for victim in shed:
            self._admissions[victim].fail(QueueFull("shed for a request of higher priority", retry_after=wait))
        admissions = [
            Admission(ticket, served.pixels, served.pixels.lease(), loop.create_future(), decode)
            for ticket, decode in zip(tickets, decodes, strict=True)
        ]
        self._admissions |= dict(zip(tickets, admissions, strict=True))
        return admissions

    def _finish_decoding(self, admission: Admission, error: Exception | None) -> None:
        admission.let_go()
        if error is not None:
            admission.fail(error)
        elif not admission.answer.done():
            admission.stages.enter("queue")
            self.scheduler.decoded(admission.ticket)
            self._start()

    def _start(self) -> None:
        """Start all that the scheduler says must start now."""
        loop = asyncio.get_running_loop()
        while (run := self.scheduler.next(loop.time())) is not None:
            if isinstance(run, Trial):
                self._trials[run].set()
                continue
            for ticket in run.dropped:
                self._admissions[ticket].fail(DeadlineExceeded("no batch could have answered before the deadline"))
            if run.tickets:
                self._start_batch(run)

    def _start_batch(self, run: Run) -> None:
        admissions = [self._admissions[ticket] for ticket in run.tickets]
        rows = [admission.row for admission in admissions]
        pixels = self._served[run.model].pixels.batch(rows, run.size, run.slot)
        span = tracing.start_batch(run.model.name, len(admissions), run.size)
        for admission in admissions:
            admission.touch("infer", span)
        work = functools.partial(_run, run.session, pixels)
        finish = functools.partial(self._finish_batch, run, admissions, span)
        self._runners[run.slot].submit(_then, asyncio.get_running_loop(), work, finish)

    def _finish_batch(
        self,
        run: Run,
        admissions: Sequence[Admission],
        span: tracing.Span,
        given: tuple[NDArray[np.float32] | Exception, float, float],
    ) -> None:
        outcome, started, ended = given
        error = outcome if isinstance(outcome, Exception) else None
        tracing.end_batch(span, error)
        now = asyncio.get_running_loop().time()
        given_up = self.scheduler.finished(run, now, ended - started, None if error is None else str(error))
        for i, admission in enumerate(admissions):
            admission.let_go()
            if isinstance(outcome, Exception):
                admission.fail(type(outcome)(str(outcome)))  # one each: raising adds to an error
            else:
                admission.succeed(outcome[i], len(admissions), started, ended)
        version = run.model.name, run.model.version
        self._metrics.batches.labels(*version, "ok" if error is None else "failed").inc()
        self._metrics.batch_size.labels(*version).observe(len(admissions))
        if error is None:
            self._metrics.predicted_seconds.labels(*version).inc(run.seconds)
            self._metrics.batch_seconds.labels(*version).inc(ended - started)
            decode_s = sum(one.decode_s for one in admissions)
            self._served[run.model].statistics.ran(len(admissions), decode_s, ended - started)
        if run.model.breaker.reason is not None and run.model not in self._probes:
            self._give_up(run.model, given_up)
        self._ended.set()
        self._start()

    def _give_up(self, model: Model, waiting: Sequence[Ticket]) -> None:
        """Fail all that waits for a model that no longer works, and try the model again later."""
        log.error("%s is not ready: %s", model.name, model.breaker.reason)
        for ticket in waiting:
            self._admissions[ticket].fail(Unavailable(str(model.breaker.reason)))
        self._probes[model] = asyncio.create_task(self._probe(self._served[model]))

    async def _probe(self, served: Served) -> None:
        """Try a model that was given up again and again, until it answers right."""
        while True:
            await asyncio.sleep(self._probe_interval_s)
            try:
                await self.try_out(served.probe)
            except Exception as error:
                log.info("%s is still not ready: %s", served.model.name, error)
            else:
                break
        del self._probes[served.model]
        self.scheduler.restored(served.model)
        log.info("%s is ready again: its probe was answered right", served.model.name)
