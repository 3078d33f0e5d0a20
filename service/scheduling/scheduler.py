"""The whole policy: what is admitted, what runs next and where. No clock, no I/O, no asyncio, no threads.

The rules:
- A slot runs one batch at a time, whichever model the batch is of. An idle slot starts a batch at once, so a batch
  only grows while the slots are busy.
- Models share the slots' time fairly. A batch cannot be interrupted, so while several models are in use, no batch is
  so long that the other models' clients notice it.
- A model whose batches keep failing takes no more work until it is restored.
- A trial is work that needs all slots for itself. It goes before any batch.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.errors import Unavailable
from service.scheduling.batch_queue import BatchQueue, Priority, Terms, Ticket
from service.scheduling.breaker import Breaker
from service.scheduling.fair_share import FairShare
from service.sessions import Session, Sessions


@dataclass(eq=False)
class Model:
    """What the scheduler knows of one served version. Its session ``i`` runs on slot ``i``."""

    name: str
    sessions: Sessions
    queue: BatchQueue
    breaker: Breaker = field(default_factory=Breaker)
    running: int = 0  # batches
    version: int = 1


@dataclass(eq=False)
class Run:
    """A batch of ``model`` to start now on ``slot``, for about ``seconds``.

    ``dropped`` are tickets that no batch could have answered in time. A run without ``tickets`` holds no slot.
    """

    model: Model
    session: Session
    slot: int
    tickets: Sequence[Ticket]
    size: int
    seconds: float
    dropped: Sequence[Ticket]


@dataclass(eq=False)
class Trial:
    """Other work, which must run while no batch runs: warm-up, or a probe. Once it is started it holds ``slots``."""

    slots: tuple[int, ...] = ()


@dataclass(eq=False)
class _Slot:
    busy: bool = False
    free_at: float = 0.0  # as predicted while it is busy


class Scheduler:
    """Queues, shares, slots and breakers of all served models. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._models: dict[Model, None] = {}
        self._slots = [_Slot()]
        self._share: FairShare[Model] = FairShare()
        self._trials: deque[Trial] = deque()
        self._running_trial: Trial | None = None

    def __repr__(self) -> str:
        slots = " ".join("busy" if slot.busy else "idle" for slot in self._slots)
        queues = "".join(f", {model.name}: {model.queue!r}" for model in self._models)
        return f"<{slots}{queues}>"

    @property
    def slots(self) -> int:
        """How many slots there are: as many as the model with the most sessions ever had sessions."""
        return len(self._slots)

    def add(self, model: Model) -> None:
        """Serve one more model."""
        self._models[model] = None
        self._share.add(model)
        self._slots += [_Slot() for _ in range(len(model.sessions) - len(self._slots))]

    def remove(self, model: Model) -> None:
        """Forget a model of which nothing waits or runs."""
        del self._models[model]
        self._share.remove(model)

    def check(self, model: Model, terms: Terms, now: float) -> None:
        """Raise what ``admit`` would raise now. This costs little, so it comes before a body is read."""
        if model.breaker.reason is not None:
            raise Unavailable(model.breaker.reason)
        model.queue.check(terms, now, self.wait(model, terms.priority, now))

    def admit(self, model: Model, terms: Terms, now: float, count: int = 1) -> tuple[list[Ticket], list[Ticket]]:
        """Give ``count`` places in the queue, all or none. Return the tickets, and those that are shed to make room.

        Raises QueueFull, DeadlineUnmeetable or Unavailable.
        """
        if model.breaker.reason is not None:
            raise Unavailable(model.breaker.reason)
        return model.queue.offer(terms, now, self.wait(model, terms.priority, now), count)

    def wait(self, model: Model, priority: Priority, now: float) -> float:
        """Return the predicted seconds before a new ticket of ``priority`` would start.

        That is the rest of the batches that run, what is ahead in the model's own queue, and of every other queue as
        much as a fair share lets run in that time. The slots take on this work as they become free, the first free
        first.
        """
        own = model.queue.backlog(priority)
        share = own + model.queue.cost.seconds(1)
        work = own + sum(min(other.queue.backlog(), share) for other in self._models if other is not model)
        busy = sorted(max(0.0, slot.free_at - now) for slot in self._slots[: len(model.sessions)])
        return min((sum(busy[:slots]) + work) / slots for slots in range(1, len(busy) + 1))

    def decoded(self, ticket: Ticket) -> None:
        """Note that a ticket's image can run."""
        ticket.decoded = True

    def cancel(self, ticket: Ticket) -> None:
        """Forget a ticket whose client has gone, if the ticket waits."""
        ticket.queue.remove(ticket)

    def try_out(self, trial: Trial) -> None:
        """Let ``trial`` start as soon as all slots are idle."""
        self._trials.append(trial)

    def next(self, now: float) -> Run | Trial | None:
        """Return what must start now, or None. The caller asks again until it gets None."""
        idle = [number for number, slot in enumerate(self._slots) if not slot.busy]
        if self._running_trial is not None:
            return None
        if self._trials:
            if len(idle) < len(self._slots):
                return None
            self._running_trial = self._trials.popleft()
            self._running_trial.slots = tuple(idle)
            for slot in self._slots:
                slot.busy = True
            return self._running_trial
        # A model runs on the first of the slots, as many as it has sessions.
        runnable = (model for model in self._models if model.queue.ready and any(n < len(model.sessions) for n in idle))
        model = self._share.next(runnable)
        if model is None:
            return None
        # The slot that has been idle for longest runs the batch, so that GPUs take turns.
        usable = (number for number in idle if number < len(model.sessions))
        number = min(usable, key=lambda number: self._slots[number].free_at)
        batch = model.queue.take(now, self._longest(model, now))
        seconds = model.queue.cost.seconds(batch.size)
        if batch.tickets:
            model.running += 1
            self._share.charge(model, seconds, now)
            self._slots[number].busy, self._slots[number].free_at = True, now + seconds
        return Run(model, model.sessions[number], number, batch.tickets, batch.size, seconds, batch.dropped)

    def finished(self, run: Run, now: float, seconds: float, error: str | None = None) -> list[Ticket]:
        """Note that a batch ended, after ``seconds``, or failed with ``error``.

        Returns the tickets that wait for the model, if this failure made the model be given up.
        """
        self._slots[run.slot].busy, self._slots[run.slot].free_at = False, now
        run.model.running -= 1
        if error is None:
            run.model.breaker.succeeded(run.slot)
            run.model.queue.cost.observe(run.size, seconds)
        elif run.model.breaker.failed(run.slot, error):
            return run.model.queue.clear()
        return []

    def tried_out(self, trial: Trial, now: float) -> None:
        """Note that a trial has ended, or is no longer wanted."""
        if trial in self._trials:
            self._trials.remove(trial)
        if trial is self._running_trial:
            self._running_trial = None
        for number in trial.slots:
            self._slots[number].busy, self._slots[number].free_at = False, now

    def restored(self, model: Model) -> None:
        """Offer a model again that was given up."""
        model.breaker.close()

    def _longest(self, model: Model, now: float) -> float:
        """Return the seconds that a batch of ``model`` may take, for the sake of the other models in use.

        A wait as long as its own batch of one is what a model's clients notice.
        """
        others = (other for other in self._models if other is not model)
        in_use = (other for other in others if other.queue.ready or self._share.in_use(other, now))
        return min((other.queue.cost.seconds(1) for other in in_use), default=math.inf)
