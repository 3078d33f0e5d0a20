"""Slots of the scheduler: where they come from, who may use them, and trials, which need all of them."""

from __future__ import annotations

import pytest

from service.scheduling.batch_queue import Priority
from service.scheduling.scheduler import Scheduler, Trial
from tests.service.scheduling.scheduled import put, served, started


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


def test_a_slot_that_comes_while_a_trial_runs_waits_for_the_end_of_the_trial() -> None:
    scheduler, trial = Scheduler(), Trial()
    scheduler.try_out(trial)
    assert scheduler.next(0.0) is trial
    model = served(scheduler, "a", 0.1, slots=2)
    put(scheduler, model, 1)
    assert scheduler.next(0.0) is None  # although the new slot is idle
    scheduler.tried_out(trial, 0.1)
    assert started(scheduler, 0.1).slot == 1
    assert repr(scheduler) == "<idle busy, a: 0 decoded of 0 waiting>"


def test_a_model_that_can_use_an_idle_slot_does_not_wait_for_one_that_cannot() -> None:
    scheduler = Scheduler()
    narrow, wide = served(scheduler, "narrow", 0.01), served(scheduler, "wide", 0.1, slots=2)
    put(scheduler, narrow, 1)
    assert started(scheduler).slot == 0
    put(scheduler, narrow, 1)
    put(scheduler, wide, 1)
    assert started(scheduler).model is wide
