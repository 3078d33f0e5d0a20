"""The whole scheduling policy, without loop, clock or threads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeadlineUnmeetable, Unavailable
from service.scheduling.batch_queue import BatchQueue, Priority
from service.scheduling.cost_model import CostModel
from service.scheduling.scheduler import Model, Run, Scheduler, Trial

MAX_QUEUE = 12


class Named:
    """A session that is never run."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError


def served(to: Scheduler, name: str, seconds: float, slots: int = 1) -> Model:
    """A model whose images take ``seconds`` each, and whose batches take 0.02 s more."""
    cost = CostModel({size: 0.02 + seconds * size for size in (1, 2, 4, 8)})
    model = Model(name, tuple(Named() for _ in range(slots)), BatchQueue(cost, MAX_QUEUE))
    to.add(model)
    return model


def put(to: Scheduler, model: Model, count: int, now: float = 0.0) -> None:
    for _ in range(count):
        ticket, _ = to.admit(model, now + 1000.0, Priority.NORMAL, now)
        to.decoded(ticket)


def started(by: Scheduler, now: float = 0.0) -> Run:
    run = by.next(now)
    assert isinstance(run, Run)
    return run


def test_nothing_waits_so_nothing_runs() -> None:
    scheduler = Scheduler()
    served(scheduler, "a", 0.1)
    assert scheduler.next(0.0) is None
    assert repr(scheduler) == "<idle, a: 0 decoded of 0 waiting>"


def test_an_idle_slot_starts_at_once_and_a_busy_one_lets_a_batch_grow() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    put(scheduler, model, 1)
    first = started(scheduler)
    put(scheduler, model, 3)
    assert scheduler.next(0.0) is None
    assert repr(scheduler) == "<busy, a: 3 decoded of 3 waiting>"
    scheduler.finished(first, 0.12, 0.12)
    second = started(scheduler, 0.12)
    assert [len(run.tickets) for run in (first, second)] == [1, 2]  # three run as two and one: padding costs more
    assert second.session is model.sessions[0]


def test_work_that_is_not_decoded_yet_counts_and_does_not_run() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    ticket, _ = scheduler.admit(model, 1000.0, Priority.NORMAL, 0.0)
    assert scheduler.next(0.0) is None
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == pytest.approx(0.12)
    scheduler.cancel(ticket)
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == 0.0


def test_dropped_tickets_are_told_even_when_nothing_runs() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    ticket, _ = scheduler.admit(model, 1.0, Priority.NORMAL, 0.0)
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


def test_slots_come_from_the_sessions_and_take_on_what_waits_as_they_become_free() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1, slots=2)
    assert scheduler.slots == 2
    put(scheduler, model, 8)
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == pytest.approx(0.82 / 2)
    first = started(scheduler)
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == 0.0  # the other slot is free
    put(scheduler, model, 2)
    second = started(scheduler)
    assert {first.slot, second.slot} == {0, 1}
    assert second.session is model.sessions[second.slot]
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == pytest.approx(0.22)
    put(scheduler, model, 8)
    # The second slot works alone until the first is free. Then both work.
    assert scheduler.wait(model, Priority.NORMAL, 0.0) == pytest.approx((0.82 + 0.22 + 0.82) / 2)


def test_idle_slots_take_turns() -> None:
    scheduler = Scheduler()
    model, now, slots = served(scheduler, "a", 0.1, slots=2), 0.0, []
    for _ in range(4):
        put(scheduler, model, 1, now)
        run = started(scheduler, now)
        now += 1.0
        scheduler.finished(run, now, run.seconds)
        slots.append(run.slot)
    assert slots == [0, 1, 0, 1]


def test_a_model_with_one_session_runs_on_its_slot_alone() -> None:
    scheduler = Scheduler()
    served(scheduler, "wide", 0.1, slots=2)
    narrow = served(scheduler, "narrow", 0.1)
    put(scheduler, narrow, 1)
    assert started(scheduler).slot == 0
    put(scheduler, narrow, 1)
    assert scheduler.next(0.0) is None
    assert scheduler.wait(narrow, Priority.NORMAL, 0.0) == pytest.approx(0.12 + 0.12)


def test_what_cannot_be_answered_in_time_is_refused() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    put(scheduler, model, 8)
    with pytest.raises(DeadlineUnmeetable):
        scheduler.check(model, 0.9, Priority.NORMAL, 0.0)
    with pytest.raises(DeadlineUnmeetable):
        scheduler.admit(model, 0.9, Priority.NORMAL, 0.0)
    scheduler.check(model, 1.1, Priority.NORMAL, 0.0)
    assert len(model.queue) == 8


def test_a_failing_model_is_given_up_with_all_that_waits_until_it_is_restored() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1)
    for failures in range(1, 4):
        put(scheduler, model, 1)
        run = started(scheduler)
        waiting, _ = scheduler.admit(model, 1000.0, Priority.NORMAL, 0.0)
        given_up = scheduler.finished(run, 0.1, 0.1, "out of memory")
        assert given_up == ([waiting] if failures == 3 else [])
        scheduler.cancel(waiting)
    for refuse in (scheduler.check, scheduler.admit):
        with pytest.raises(Unavailable, match="3 batches in a row failed, the last with: out of memory"):
            refuse(model, 1000.0, Priority.NORMAL, 0.0)
    scheduler.restored(model)
    scheduler.check(model, 1000.0, Priority.NORMAL, 0.0)


def test_a_slot_that_works_does_not_hide_one_that_fails() -> None:
    scheduler = Scheduler()
    model = served(scheduler, "a", 0.1, slots=2)
    for _ in range(3):
        assert model.breaker.reason is None
        runs = []
        for _ in model.sessions:
            put(scheduler, model, 1)
            runs.append(started(scheduler))
        good, bad = sorted(runs, key=lambda run: run.slot)
        scheduler.finished(good, 0.1, 0.1)
        scheduler.finished(bad, 0.1, 0.1, "device lost")
    assert model.breaker.reason is not None


def test_a_trial_waits_for_all_slots_and_holds_them() -> None:
    scheduler = Scheduler()
    model, trial = served(scheduler, "a", 0.1, slots=2), Trial()
    put(scheduler, model, 1)
    run = started(scheduler)
    scheduler.try_out(trial)
    put(scheduler, model, 1)
    assert scheduler.next(0.0) is None  # the idle slot is kept for the trial
    scheduler.finished(run, 0.1, 0.1)
    assert scheduler.next(0.1) is trial
    assert repr(scheduler) == "<busy busy, a: 1 decoded of 1 waiting>"
    assert scheduler.next(0.1) is None
    scheduler.tried_out(trial, 0.2)
    assert started(scheduler, 0.2).model is model


def test_a_trial_that_is_no_longer_wanted_never_starts() -> None:
    scheduler, trial = Scheduler(), Trial()
    scheduler.try_out(trial)
    scheduler.tried_out(trial, 0.0)
    assert scheduler.next(0.0) is None


def test_a_trial_frees_no_slot_that_came_after_it_had_started() -> None:
    scheduler, trial = Scheduler(), Trial()
    scheduler.try_out(trial)
    assert scheduler.next(0.0) is trial
    model = served(scheduler, "a", 0.1, slots=2)
    put(scheduler, model, 1)
    assert started(scheduler).slot == 1
    scheduler.tried_out(trial, 0.1)
    assert repr(scheduler) == "<idle busy, a: 0 decoded of 0 waiting>"


def test_a_model_that_can_use_an_idle_slot_does_not_wait_for_one_that_cannot() -> None:
    scheduler = Scheduler()
    narrow, wide = served(scheduler, "narrow", 0.01), served(scheduler, "wide", 0.1, slots=2)
    put(scheduler, narrow, 1)
    assert started(scheduler).slot == 0
    put(scheduler, narrow, 1)
    put(scheduler, wide, 1)
    assert started(scheduler).model is wide


def test_a_removed_model_leaves_the_others_alone() -> None:
    scheduler = Scheduler()
    gone, stays = served(scheduler, "gone", 0.1), served(scheduler, "stays", 0.1)
    put(scheduler, gone, 1)
    scheduler.finished(started(scheduler), 0.12, 0.12)
    scheduler.remove(gone)
    put(scheduler, stays, 1, 0.2)
    assert started(scheduler, 0.2).model is stays
    assert repr(scheduler) == "<busy, stays: 0 decoded of 0 waiting>"
