from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench import plots
from bench.plots import BarChart, Curves
from bench.report import Bar, Report


def test_bars_include_their_limit() -> None:
    assert Bar("lost", 0, 0).met
    assert not Bar("lost", 1, 0).met
    assert Bar("goodput", 0.95, 0.95, at_least=True).met
    assert not Bar("goodput", 0.94, 0.95, at_least=True).met


def test_what_is_not_a_number_meets_no_bar() -> None:
    assert not Bar("p99", math.nan, 50).met
    assert not Bar("p99", math.nan, 50, at_least=True).met


@pytest.fixture
def report() -> Report:
    figures = {
        "served": "int8 on cpu",
        "p99_ms": math.nan,
        "rates": {"fp32 on cpu": {1: 10.0, 2: 12.345}, "int8 on cpu": {2: 40}},
        "decode_ms": {"exact": 8.0, "fast": 4.0},
        "ratio": [0.5, 1.0],
    }
    charts: list[BarChart | Curves] = [
        BarChart("images/s", {"a": 1.0, "b": 2.0}),
        Curves("memory", {"memory": [(0.0, 1.0), (1.0, 2.0)]}),
        Curves("latency", {"right": [(0.0, 0.1)], "refused": []}, "dots", {"right": "tab:green"}, level=1.0),
    ]
    return Report("trial", figures, [Bar("lost", 0, 0), Bar("p99", math.nan, 50)], charts)


def test_figures_as_text_are_lines_and_tables(report: Report) -> None:
    title, *bars = report.text().splitlines()[:3]
    assert title == "trial"
    assert [bar.split()[0] for bar in bars] == ["PASS", "FAIL"]
    assert report.text().splitlines()[3:] == [
        "  served int8 on cpu, p99_ms nan, ratio 0.5 1",
        "  rates           1      2",
        "    fp32 on cpu  10  12.35",
        "    int8 on cpu         40",
        "  decode_ms",
        "    exact 8, fast 4",
    ]


def test_a_report_is_written_as_json_and_as_a_picture(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "reports")

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    content = json.loads((tmp_path / "reports" / "trial.json").read_text(), parse_constant=refuse)
    assert content["passed"] is False
    assert [bar["met"] for bar in content["bars"]] == [True, False]
    assert content["figures"]["p99_ms"] is None
    assert content["figures"]["rates"]["fp32 on cpu"]["2"] == 12.345
    assert content["machine"].keys() >= {"cpu", "cpus", "system"}
    assert (tmp_path / "reports" / "trial.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "AVAILABLE", False)
    report.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trial.json"]
