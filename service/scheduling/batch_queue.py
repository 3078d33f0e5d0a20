"""The waiting tickets of one model: which run next, in which batch, and which are refused. No clock, no I/O.

The rules:
- A ticket waits from its admission, so that work which is not decoded yet counts. It can run once it is decoded.
- Order is priority, then arrival. A full queue sheds its last ticket of lower priority, or refuses the new one.
- A ticket that cannot be answered by its deadline is refused on arrival, or dropped before it runs.
- A batch has one of the fixed sizes. The cost model says whether a remainder is padded or split.
"""

import bisect
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from service.errors import DeadlineUnmeetable, QueueFull
from service.scheduling.cost_model import CostModel

_DOUBT = 0.15  # a predicted wait is off by so much now and then, and what is admitted should be answered all the same


class Priority(IntEnum):
    """Strict: a lower number runs first and is shed last."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Terms(NamedTuple):
    """On which terms an image is admitted.

    ``deadline`` is in seconds on the caller's clock. An image that would have to wait is refused if its answer is
    predicted to take more than ``max_wait`` seconds.
    """

    deadline: float
    priority: Priority = Priority.NORMAL
    max_wait: float = math.inf


@dataclass(eq=False)
class Ticket:
    """One admitted image in its model's ``queue``. ``deadline`` is in seconds on the caller's clock."""

    queue: "BatchQueue"
    deadline: float
    priority: Priority
    decoded: bool = field(default=False, init=False)


class Batch(NamedTuple):
    """Tickets to run together, padded to ``size``, and tickets dropped because no batch could answer them in time."""

    tickets: list[Ticket]
    size: int
    dropped: list[Ticket]


class BatchQueue:
    """The waiting tickets of one model. ``cost`` predicts what a batch takes."""

    def __init__(self, cost: CostModel, max_size: int) -> None:
        self.cost = cost
        self._max_size = max_size
        self._waiting: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"{self.ready} decoded of {len(self)} waiting"

    @property
    def ready(self) -> int:
        """How many tickets could run now."""
        return sum(ticket.decoded for ticket in self._waiting)

    def backlog(self, priority: Priority = Priority.LOW) -> float:
        """Return the predicted seconds of all that would run before a new ticket of ``priority``."""
        return self.cost.total(self._ahead(priority))

    def offer(self, terms: Terms, now: float, wait: float, count: int = 1) -> tuple[list[Ticket], list[Ticket]]:
        """Admit ``count`` tickets, all or none. Return the tickets, and those shed to make room for them.

        ``wait`` is the predicted time in seconds until all that runs before the tickets is done. Raises QueueFull or
        DeadlineUnmeetable.
        """
        shed = self.check(terms, now, wait, count)
        for victim in shed:
            self._waiting.remove(victim)
        tickets = [Ticket(self, terms.deadline, terms.priority) for _ in range(count)]
        ahead = self._ahead(terms.priority)
        self._waiting[ahead:ahead] = tickets
        return tickets, shed

    def check(self, terms: Terms, now: float, wait: float, count: int = 1) -> list[Ticket]:
        """Return the tickets that ``offer`` would shed. Raise what ``offer`` would raise, and change nothing."""
        wait_s = wait * (1 + _DOUBT)
        if (late_by := now + wait_s + self.cost.total(count) - terms.deadline) > 0:
            late = f"{len(self)} requests wait: the answer may come {late_by:.1f} s past its deadline"
            raise DeadlineUnmeetable(late, retry_after=wait)
        # Nothing drops a request without a deadline when it is late. So its whole batch counts.
        batch = self.cost.seconds(self.cost.next_size(self._ahead(terms.priority) + 1))
        needed = wait_s + max(batch, self.cost.total(count))
        if wait and needed > terms.max_wait:  # an idle server takes even what it needs long for
            long = f"{len(self)} requests wait: the answer may come in {needed:.1f} s, and no deadline says that it may"
            raise QueueFull(long, retry_after=wait)
        lower = self._waiting[self._ahead(terms.priority) :]
        excess = len(self) + count - self._max_size
        if excess > len(lower):
            raise QueueFull(f"the queue is full with {len(self)} requests", retry_after=wait)
        return lower[-excess:] if excess > 0 else []

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket, if it waits here."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def clear(self) -> list[Ticket]:
        """Remove and return all that waits."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def take(self, now: float, longest: float = math.inf) -> Batch:
        """Remove and return the next batch. It has no tickets when nothing is decoded.

        The batch takes at most ``longest`` seconds if smaller batches allow that.
        """
        earliest = now + self.cost.seconds(1)
        dropped = [ticket for ticket in self._waiting if ticket.deadline < earliest]
        ready = [ticket for ticket in self._waiting if ticket.decoded and ticket.deadline >= earliest]
        size = self.cost.next_size(len(ready)) if ready else 0
        while size > 1 and self.cost.seconds(size) > min(longest, *(ticket.deadline - now for ticket in ready[:size])):
            size = max(smaller for smaller in self.cost.sizes if smaller < size)
        tickets = ready[:size]
        gone = {*dropped, *tickets}
        self._waiting = [ticket for ticket in self._waiting if ticket not in gone]
        return Batch(tickets, size, dropped)

    def _ahead(self, priority: Priority) -> int:
        return bisect.bisect_right(self._waiting, priority, key=lambda ticket: ticket.priority)
