"""The whole scheduling policy, without loop, clock or threads."""

from __future__ import annotations

import pytest

from service.errors import DeadlineUnmeetable, Unavailable
from service.scheduling.batch_queue import Priority, Terms
from service.scheduling.scheduler import Scheduler
from tests.service.scheduling.scheduled import MAX_QUEUE, put, served, started


def test_nothing_waits_so_nothing_runs() -> None:
    scheduler = Scheduler()
    served(scheduler, "a", 0.1)
    assert scheduler.next(0.0) is None
    assert repr(scheduler) == "<idle, a: 0 decoded of 0 waiting>"


def test_work_that_is_not_decoded_yet_counts_and_does_not_run() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    (ticket,), _ = scheduler.admit(model, Terms(1000.0), 0.0)
    assert scheduler.next(0.0) is None
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == pytest.approx(0.12)
    scheduler.cancel(ticket)
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == 0.0


def test_dropped_tickets_are_told_even_when_nothing_runs() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    (ticket,), _ = scheduler.admit(model, Terms(1.0), 0.0)
    scheduler.decoded(ticket)
    run = started(scheduler, 0.95)
    assert (run.tickets, run.dropped) == ([], [ticket])
    assert repr(scheduler) == "<idle, a: 0 decoded of 0 waiting>"
    assert scheduler.next(0.95) is None


def test_a_flood_on_one_model_does_not_hold_up_the_other() -> None:
    scheduler = Scheduler()
    flooded, quiet = served(scheduler, "flooded", 0.1), served(scheduler, "quiet", 0.1)
    put(scheduler, flooded, MAX_QUEUE)
    run = started(scheduler)
    put(scheduler, quiet, 1, 0.1)
    scheduler.finished(run, 0.9, 0.9)
    assert started(scheduler, 0.9).model is quiet


def test_busy_models_get_equal_time_whatever_they_cost() -> None:
    scheduler = Scheduler()
    light, heavy = served(scheduler, "light", 0.01), served(scheduler, "heavy", 0.05)
    now, used = 0.0, {light: 0.0, heavy: 0.0}
    for _ in range(200):
        for model in used:
            put(scheduler, model, MAX_QUEUE - len(model.queue), now)
        run = started(scheduler, now)
        used[run.model] += run.seconds
        now += run.seconds
        scheduler.finished(run, now, run.seconds)
    assert used[light] == pytest.approx(used[heavy], rel=0.05)


def test_a_quiet_model_saves_up_no_claim() -> None:
    scheduler = Scheduler()
    busy, quiet = served(scheduler, "busy", 0.1), served(scheduler, "quiet", 0.1)
    for second in range(50):
        put(scheduler, busy, 1, float(second))
        scheduler.finished(started(scheduler, float(second)), second + 0.12, 0.12)
    for model in (busy, quiet):
        put(scheduler, model, MAX_QUEUE, 50.0)
    ran = set()
    for _ in range(2):
        run = started(scheduler, 50.0)
        scheduler.finished(run, 50.0, run.seconds)
        ran.add(run.model)
    assert ran == {busy, quiet}


def test_batches_are_short_while_another_model_is_in_use() -> None:
    scheduler = Scheduler()
    flooded, quiet = served(scheduler, "flooded", 0.04), served(scheduler, "quiet", 0.1)
    put(scheduler, quiet, 1)
    scheduler.finished(started(scheduler), 0.12, 0.12)
    put(scheduler, flooded, 8, 1.0)
    run = started(scheduler, 1.0)
    assert (run.model, run.size) == (flooded, 2)  # within the 0.12 s that one image of the other takes
    scheduler.finished(run, 1.1, 0.1)
    put(scheduler, flooded, 2, 60.0)
    assert started(scheduler, 60.0).size == 8


def test_the_wait_counts_what_runs_what_is_ahead_and_a_fair_share_of_others() -> None:
    scheduler = Scheduler()
    own, other = served(scheduler, "own", 0.1), served(scheduler, "other", 0.1)
    assert scheduler.wait(own, Priority.NORMAL, 0.0) == 0.0
    put(scheduler, other, 8)
    started(scheduler)
    assert scheduler.wait(own, Priority.NORMAL, 0.5) == pytest.approx(0.32)
    put(scheduler, own, 8, 0.5)
    assert scheduler.wait(own, Priority.NORMAL, 0.5) == pytest.approx(0.32 + 0.82)
    put(scheduler, other, 4, 0.5)
    assert scheduler.wait(own, Priority.NORMAL, 0.5) == pytest.approx(0.32 + 0.82 + 0.42)


def test_what_cannot_be_answered_in_time_is_refused() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    put(scheduler, model, 8)
    with pytest.raises(DeadlineUnmeetable):
        scheduler.check(model, Terms(0.9), 0.0)
    with pytest.raises(DeadlineUnmeetable):
        scheduler.admit(model, Terms(0.9), 0.0)
    scheduler.check(model, Terms(1.1), 0.0)
    assert len(model.queue) == 8


def test_a_failing_model_is_given_up_with_all_that_waits_until_it_is_restored() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    for failures in range(1, 4):
        put(scheduler, model, 1)
        run = started(scheduler)
        (waiting,), _ = scheduler.admit(model, Terms(1000.0), 0.0)
        given_up = scheduler.finished(run, 0.1, 0.1, "out of memory")
        assert given_up == ([waiting] if failures == 3 else [])
        scheduler.cancel(waiting)
    for refuse in (scheduler.check, scheduler.admit):
        with pytest.raises(Unavailable, match="3 batches in a row failed, the last with: out of memory"):
            refuse(model, Terms(1000.0), 0.0)
    scheduler.restored(model)
    scheduler.check(model, Terms(1000.0), 0.0)


def test_a_removed_model_leaves_the_others_alone() -> None:
    scheduler = Scheduler()
    gone, stays = served(scheduler, "gone", 0.1), served(scheduler, "stays", 0.1)
    put(scheduler, gone, 1)
    scheduler.finished(started(scheduler), 0.12, 0.12)
    scheduler.remove(gone)
    put(scheduler, stays, 1, 0.2)
    assert started(scheduler, 0.2).model is stays
    assert repr(scheduler) == "<busy, stays: 0 decoded of 0 waiting>"
