from __future__ import annotations

from service.budget import Budget


def test_what_is_taken_is_bounded_until_given_back() -> None:
    budget = Budget(10)
    assert budget.try_take(6)
    assert not budget.try_take(5)
    budget.give_back(6)
    assert budget.try_take(10)
