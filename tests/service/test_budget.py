from __future__ import annotations

import threading

from service.budget import Budget


def test_what_is_taken_is_bounded_until_given_back() -> None:
    budget = Budget(10)
    assert budget.try_take(6)
    assert not budget.try_take(5)
    budget.give_back(6)
    assert budget.try_take(10)


def test_a_holder_waits_for_its_share() -> None:
    budget = Budget(10)
    got_it = threading.Event()

    def second() -> None:
        with budget.hold(5):
            got_it.set()

    with budget.hold(6):
        waiting = threading.Thread(target=second)
        waiting.start()
        while not (getattr(budget._changed, "_waiters") or got_it.is_set()):  # noqa: B009 - not in its type stub
            pass
        assert not got_it.is_set()
        assert budget.held == 6
    assert got_it.wait(10)
    waiting.join()
    assert budget.held == 0


def test_more_than_the_whole_is_held_alone() -> None:
    budget = Budget(10)
    with budget.hold(1000):
        assert budget.held == 10
        assert not budget.try_take(1)
