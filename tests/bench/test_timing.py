from __future__ import annotations

import math

import pytest

from bench.timing import in_turns, percentile


def test_works_take_turns_and_the_first_turn_does_not_count() -> None:
    clock, order = [0.0], list[str]()

    def work(name: str, *seconds: float) -> None:
        order.append(name)
        clock[0] += seconds[order.count(name) - 1]

    works = {"a": lambda: work("a", 9, 1, 3, 2), "b": lambda: work("b", 9, 5, 5, 50)}
    assert in_turns(works, rounds=3, clock=lambda: clock[0]) == {"a": [1, 3, 2], "b": [5, 5, 50]}
    assert order == ["a", "b"] * 4


def test_a_turn_fills_a_block_of_time() -> None:
    clock, calls = [0.0], list[float]()

    def work() -> None:
        calls.append(clock[0])
        clock[0] += 0.25

    assert in_turns({"a": work}, rounds=2, clock=lambda: clock[0], block_s=1.0) == {"a": [0.25, 0.25]}
    assert len(calls) == 1 + 4 + 4


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.1, 100.0), (100, 100.0)]
)
def test_a_percentile_is_a_latency_that_somebody_had(percent: float, value: float) -> None:
    assert percentile((float(i) for i in range(100, 0, -1)), percent) == value


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 99))
