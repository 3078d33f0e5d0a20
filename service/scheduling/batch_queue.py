"""Which requests a model runs next, in which batch, and which it refuses. Pure policy: no clock, no I/O, no asyncio.

The rules:
- A ticket is in the queue from its admission, so that undecoded work counts, and can run once it is decoded.
- Order is priority, then arrival. A full queue sheds its last ticket of lower priority, or refuses the new one.
- A ticket that can't be answered by its deadline is refused on arrival, or dropped before it runs.
- A batch takes one of the fixed sizes; the cost model says whether a remainder is padded or split.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from service.errors import DeadlineUnmeetable, QueueFull
from service.scheduling.cost_model import CostModel

_DOUBT = 0.15  # a predicted wait is off by so much now and then; what is admitted should make it all the same


class Priority(IntEnum):
    """Strict: a lower number runs first and is shed last."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(eq=False)
class Ticket:
    """One admitted image. Times are seconds on the caller's clock."""

    deadline: float
    priority: Priority = Priority.NORMAL
    decoded: bool = field(default=False, init=False)


T = TypeVar("T", bound=Ticket)


class Batch(NamedTuple, Generic[T]):
    """Tickets to run together, padded to ``size``; and those dropped, since no batch could answer them in time."""

    tickets: list[T]
    size: int
    dropped: list[T]


class BatchQueue(Generic[T]):
    """The waiting tickets of one model.

    ``cost`` is of batches that run side by side; a lone one takes the share ``alone`` of that.
    """

    def __init__(self, cost: CostModel, max_size: int, alone: float = 1.0) -> None:
        self.cost = cost
        self._max_size = max_size
        self.alone = alone
        self._waiting: list[T] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"BatchQueue({self.ready} decoded of {len(self)} waiting, {self.cost!r})"

    @property
    def ready(self) -> int:
        """How many tickets could run now."""
        return sum(ticket.decoded for ticket in self._waiting)

    def backlog(self, priority: Priority = Priority.LOW) -> float:
        """Return the predicted seconds of all that waits and would run before a new ticket of ``priority``."""
        return self.cost.total(self._ahead(priority))

    def offer(self, ticket: T, now: float, wait: float, *, alone: bool = False) -> list[T]:
        """Admit ``ticket``, or raise QueueFull or DeadlineUnmeetable. Returns what was shed to make room.

        ``wait`` is the predicted time in seconds until the device is done with all that runs before ``ticket``;
        ``alone`` says that nothing runs on it, or waits here.
        """
        shed = self.check(ticket, now, wait, alone=alone)
        for victim in shed:
            self._waiting.remove(victim)
        self._waiting.insert(self._ahead(ticket.priority), ticket)
        return shed

    def check(self, ticket: Ticket, now: float, wait: float, *, alone: bool = False) -> list[T]:
        """Do as ``offer`` does, but change nothing."""
        share = self.alone if alone else 1.0
        finish = now + wait * (1 + _DOUBT) + share * self.cost.seconds(1)
        if finish > ticket.deadline:
            late = f"{len(self)} requests wait: the answer may come {finish - ticket.deadline:.1f} s past its deadline"
            raise DeadlineUnmeetable(late, retry_after=wait)
        if len(self) < self._max_size:
            return []
        if self._waiting[-1].priority > ticket.priority:
            return [self._waiting[-1]]
        raise QueueFull(f"the queue is full with {len(self)} requests", retry_after=wait)

    def remove(self, ticket: T) -> None:
        """Forget a ticket whose client has gone; one that is not waiting is none of ours."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def clear(self) -> list[T]:
        """Remove and return all that waits."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def take(self, now: float, longest: float = math.inf, *, alone: bool = False, streams: int = 1) -> Batch[T]:
        """Remove and return the next batch; without tickets when nothing is decoded.

        It takes at most ``longest`` seconds if smaller batches allow. ``alone`` says that nothing will run beside it;
        of ``streams`` that run side by side it is one's share, the others' is left.
        """
        share = self.alone if alone else 1.0
        earliest = now + share * self.cost.seconds(1)
        dropped = [ticket for ticket in self._waiting if ticket.deadline < earliest]
        ready = [ticket for ticket in self._waiting if ticket.decoded and ticket.deadline >= earliest]
        size = self.cost.next_size(math.ceil(len(ready) / streams)) if ready else 0
        while size > 1 and self.cost.seconds(size) > min(longest, *(t.deadline - now for t in ready[:size])):
            size = max(smaller for smaller in self.cost.sizes if smaller < size)
        tickets = ready[:size]
        gone = {*dropped, *tickets}
        self._waiting = [ticket for ticket in self._waiting if ticket not in gone]
        return Batch(tickets, size, dropped)

    def _ahead(self, priority: Priority) -> int:
        return bisect.bisect_right(self._waiting, priority, key=lambda ticket: ticket.priority)
