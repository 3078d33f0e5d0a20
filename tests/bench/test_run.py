from __future__ import annotations

import pytest

from bench.run import Run, one_by_one
from bench.traffic import poisson
from bench.workload import Error, Outcome


def answered(intended: float, latency: float, status: int = 200, right: bool = True) -> Outcome:
    sent = intended + 0.001
    return Outcome(intended, sent, intended + latency, intended + latency, status, right=right and status == 200)


def lost(intended: float, error: Error) -> Outcome:
    return Outcome(intended, intended, finished=intended + 1, error=error)


def test_goodput_counts_right_answers_in_time_by_when_they_came() -> None:
    run = Run(
        start=100.0,
        end=110.0,
        deadline_s=2.0,
        outcomes=[
            answered(102.0, 1.0),
            answered(103.0, 2.0),
            answered(104.0, 2.5),  # late
            answered(105.0, 0.1, right=False),
            answered(106.0, 0.1, status=429),
            answered(107.0, 0.1, status=504),
            answered(100.5, 1.5),  # intended in the first tenth, answered later
            answered(100.1, 0.1),  # at a fifth of the first tenth
            answered(109.4, 0.1),  # in the middle of the last tenth
            answered(109.0, 1.5),  # after the end
            lost(107.0, "reset"),
        ],
    )
    assert run.goodput() == pytest.approx((1 + 1 + 1 + 0.2 + 0.5) / 9)


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5, 0.999])
def test_goodput_does_not_depend_on_where_the_batches_fall(phase: float) -> None:
    outcomes = [answered(second + phase, 0.0) for second in range(25) for _ in range(8)]
    assert Run(0.0, 25.0, 1.0, outcomes).goodput() == pytest.approx(8, rel=0.01)


def test_an_expired_request_was_accepted_and_a_refused_one_was_not() -> None:
    run = Run(
        start=0.0,
        end=10.0,
        deadline_s=2.0,
        outcomes=[
            answered(0.0, 1.0),
            answered(0.0, 2.0, status=504),
            answered(0.0, 3.0, right=False),
            answered(0.0, 4.0, status=500),
            answered(0.0, 0.1, status=429),
            answered(0.0, 0.2, status=503),
            lost(0.0, "vanished"),
            lost(0.0, "timeout"),
        ],
    )
    assert run.accepted() == [1.0, 2.0, 3.0, 4.0]
    assert run.refused() == [0.1, 0.2]
    figures = run.figures()
    assert [figures[kind] for kind in ("right", "wrong", "expired", "failed")] == [1, 1, 1, 1]
    assert [figures[kind] for kind in ("refused", "vanished", "unanswered")] == [2, 1, 1]
    assert figures["error_timeout"] == 1
    assert figures["offered_per_s"] == pytest.approx(0.8)
    assert figures["accepted_p99_ms"] == 4000
    assert figures["client_lag_p99_ms"] == pytest.approx(1)


def test_growth_compares_the_last_third_with_the_middle_one() -> None:
    sizes = [500] * 10 + [200] * 10 + [210] * 10
    run = Run(100.0, 130.0, 1.0, [], [(100.5 + i, size) for i, size in enumerate(sizes)])
    assert run.growth() == pytest.approx(0.05)
    assert run.figures()["resident_peak_mb"] == 500 / 1e6


def test_one_by_one_waits_as_the_queue_theory_of_constant_service_says() -> None:
    load = 0.8
    latencies = one_by_one(poisson(load, 200_000), 1.0)
    assert sum(latencies) / len(latencies) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)
    assert one_by_one([0.0, 0.5, 9.0], 2.0) == [2.0, 3.5, 2.0]


def test_a_run_is_plotted_by_kind() -> None:
    outcomes = [answered(0.0, 0.25), answered(0.5, 0.125), answered(2.0, 0.5, status=429)]
    latency, answers, memory = Run(0.0, 3.0, 1.0, outcomes, [(1.0, 2_000_000)]).plots()
    assert latency.points == {"right": [(0.0, 0.25), (0.5, 0.125)], "refused": [(2.0, 0.5)]}
    assert latency.level == 1.0
    assert answers.points["right"] == [(0.0, 2.0), (1.0, 0.0)]
    assert memory.points == {"memory": [(1.0, 2.0)]}
