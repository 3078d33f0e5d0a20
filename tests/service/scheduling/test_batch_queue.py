from __future__ import annotations

import pytest

from service.errors import DeadlineUnmeetable, QueueFull
from service.scheduling.batch_queue import BatchQueue, Priority, Terms, Ticket
from service.scheduling.cost_model import CostModel


def queue(max_size: int = 100, *, a: float = 1.0, b: float = 0.1) -> BatchQueue:
    return BatchQueue(CostModel({size: a + b * size for size in (1, 2, 4, 8)}), max_size)


def offered(
    to: BatchQueue, *, deadline: float = 100.0, priority: Priority = Priority.NORMAL, wait: float = 0.0
) -> Ticket:
    (ticket,), _ = to.offer(Terms(deadline, priority), now=0.0, wait=wait)
    ticket.decoded = True
    return ticket


def test_undecoded_tickets_wait() -> None:
    waiting = queue()
    (ticket,), _ = waiting.offer(Terms(100.0), now=0.0, wait=0.0)
    assert not waiting.ready
    assert waiting.take(0.0) == ([], 0, [])
    ticket.decoded = True
    assert waiting.take(0.0) == ([ticket], 1, [])


def test_batches_are_in_order_of_arrival() -> None:
    waiting = queue()
    tickets = [offered(waiting) for _ in range(10)]
    assert waiting.take(0.0).tickets == tickets[:8]
    assert waiting.take(0.0).tickets == tickets[8:]


def test_priority_comes_before_arrival() -> None:
    waiting = queue()
    low, normal, high = (offered(waiting, priority=p) for p in (Priority.LOW, Priority.NORMAL, Priority.HIGH))
    assert waiting.take(0.0).tickets == [high, normal, low]


def test_a_full_queue_refuses() -> None:
    waiting = queue(max_size=2)
    offered(waiting)
    offered(waiting)
    with pytest.raises(QueueFull) as refused:
        offered(waiting, wait=3.5)
    assert refused.value.retry_after == 3.5
    assert len(waiting) == 2


def test_a_full_queue_sheds_the_latest_of_lower_priority() -> None:
    waiting = queue(max_size=3)
    first, last = offered(waiting, priority=Priority.LOW), offered(waiting, priority=Priority.LOW)
    normal = offered(waiting)
    (high,), shed = waiting.offer(Terms(100.0, Priority.HIGH), now=0.0, wait=0.0)
    assert shed == [last]
    high.decoded = True
    assert waiting.take(0.0).tickets == [high, normal, first]


def test_several_images_are_admitted_whole_or_not_at_all() -> None:
    waiting = queue(max_size=4)
    first, *low = (offered(waiting, priority=priority) for priority in (Priority.NORMAL, Priority.LOW, Priority.LOW))
    with pytest.raises(QueueFull):
        waiting.offer(Terms(100.0), now=0.0, wait=0.0, count=4)
    assert len(waiting) == 3
    tickets, shed = waiting.offer(Terms(100.0), now=0.0, wait=0.0, count=3)
    assert shed == low
    for ticket in tickets:
        ticket.decoded = True
    assert waiting.take(0.0).tickets == [first, *tickets]


def test_several_images_need_the_time_of_all() -> None:
    with pytest.raises(DeadlineUnmeetable):
        queue().offer(Terms(3.5), now=0.0, wait=0.0, count=16)  # two batches of 8, of 1.8 s
    queue().offer(Terms(3.7), now=0.0, wait=0.0, count=16)


def test_what_cannot_make_it_is_refused_on_arrival() -> None:
    waiting = queue()
    with pytest.raises(DeadlineUnmeetable, match=r"0\.1 s past"):
        offered(waiting, deadline=3.3, wait=2.0)
    offered(waiting, deadline=3.5, wait=2.0)


def test_who_sets_no_deadline_is_refused_rather_than_kept_waiting() -> None:
    waiting = queue()
    with pytest.raises(QueueFull, match=r"may come in 2\.8 s") as refused:
        waiting.check(Terms(100.0, max_wait=2.7), now=0.0, wait=1.5)
    assert refused.value.retry_after == 1.5
    assert waiting.check(Terms(100.0, max_wait=2.9), now=0.0, wait=1.5) == []
    assert waiting.check(Terms(100.0), now=0.0, wait=1.5) == []
    assert waiting.check(Terms(100.0, max_wait=0.1), now=0.0, wait=0.0) == []  # it runs at once


def test_check_changes_nothing() -> None:
    waiting = queue(max_size=1)
    low = offered(waiting, priority=Priority.LOW)
    assert waiting.check(Terms(100.0), now=0.0, wait=0.0) == [low]
    assert len(waiting) == 1


def test_what_would_be_late_is_dropped_not_run() -> None:
    waiting = queue()
    late, fine = offered(waiting, deadline=5.0), offered(waiting, deadline=50.0)
    assert waiting.take(now=4.5) == ([fine], 1, [late])


def test_a_batch_shrinks_for_a_near_deadline() -> None:
    waiting = queue(a=0.1, b=1.0)
    urgent = offered(waiting, deadline=2.2)
    others = [offered(waiting) for _ in range(7)]
    assert waiting.take(now=0.0).tickets == [urgent, others[0]]


def test_a_gone_client_leaves() -> None:
    waiting = queue()
    gone, stays = offered(waiting), offered(waiting)
    waiting.remove(gone)
    waiting.remove(gone)
    assert waiting.take(0.0).tickets == [stays]


def test_only_what_runs_before_counts_as_backlog() -> None:
    waiting = queue(a=0.0, b=1.0)
    for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW, Priority.LOW):
        offered(waiting, priority=priority)
    assert waiting.backlog(Priority.HIGH) == pytest.approx(1.0)
    assert waiting.backlog(Priority.NORMAL) == pytest.approx(2.0)
    assert waiting.backlog() == pytest.approx(4.0)
