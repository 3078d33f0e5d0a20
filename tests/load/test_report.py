from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.load.client import Error, Outcome
from tests.load.open_loop import poisson
from tests.load.report import Bar, Report, Run, one_by_one, percentile


def answered(intended: float, latency: float, status: int = 200, right: bool = True) -> Outcome:
    sent = intended + 0.001
    return Outcome(intended, sent, intended + latency, intended + latency, status, right=right and status == 200)


def lost(intended: float, error: Error) -> Outcome:
    return Outcome(intended, intended, finished=intended + 1, error=error)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.1, 100.0), (100, 100.0)]
)
def test_a_percentile_is_a_latency_that_somebody_had(percent: float, value: float) -> None:
    assert percentile((float(i) for i in range(100, 0, -1)), percent) == value


def test_a_percentile_of_nothing_meets_no_bar() -> None:
    assert math.isnan(percentile([], 99))
    assert not Bar("p99", percentile([], 99), 50).met
    assert not Bar("p99", percentile([], 99), 50, at_least=True).met


def test_bars_include_their_limit() -> None:
    assert Bar("lost", 0, 0).met
    assert not Bar("lost", 1, 0).met
    assert Bar("goodput", 0.95, 0.95, at_least=True).met
    assert not Bar("goodput", 0.94, 0.95, at_least=True).met


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
            answered(100.5, 1.5),  # meant for the first tenth, but came later
            answered(100.1, 0.1),  # a fifth into the first tenth
            answered(109.4, 0.1),  # half through the last tenth
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


def test_a_report_is_written_as_json_and_as_a_picture(tmp_path: Path) -> None:
    outcomes = [answered(i / 10, 0.1, status) for i, status in enumerate([200, 429, 504, 500] * 5)]
    run = Run(0.0, 2.0, 1.0, [*outcomes, lost(1.0, "vanished")], [(0.0, 100_000_000), (1.0, 100_000_000)])
    report = Report("trial", run, [Bar("lost", 0, 0), Bar("p99", math.nan, 50)], {"capacity_per_s": 7.5})
    report.write(tmp_path, {"model": "xception"})

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    content = json.loads((tmp_path / "trial.json").read_text(), parse_constant=refuse)
    assert content["passed"] is False
    assert [bar["met"] for bar in content["bars"]] == [True, False]
    assert content["figures"]["capacity_per_s"] == 7.5
    assert content["figures"]["refused"] == 5
    assert content["model"] == "xception"
    assert (tmp_path / "trial.png").read_bytes().startswith(b"\x89PNG")
    lines = report.table().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["trial", "PASS", "FAIL"]
