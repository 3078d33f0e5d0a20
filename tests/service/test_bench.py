from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from service import __main__, bench


def test_works_take_turns_and_the_first_turn_does_not_count() -> None:
    clock, order = [0.0], list[str]()

    def work(name: str, *seconds: float) -> None:
        order.append(name)
        clock[0] += seconds[order.count(name) - 1]

    medians = bench.alternated(
        {"a": lambda: work("a", 9, 1, 3, 2), "b": lambda: work("b", 9, 5, 5, 50)}, rounds=3, clock=lambda: clock[0]
    )
    assert order == ["a", "b"] * 4
    assert medians == {"a": 2, "b": 5}


def test_the_command_measures_every_variant(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "xception").symlink_to((model_repository / "xception").resolve())
    monkeypatch.setattr(bench, "OFFLINE_S", 0.1)
    command = f"service bench --model-repository {tmp_path}/models --max-batch-size 2 --json {tmp_path}/figures.json"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--device", "cpu"])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 0
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    assert figures["served"] in ("fp32 on cpu", "int8 on cpu")
    assert {way: set(rates) for way, rates in figures["session_per_s"].items()} == {
        "fp32 on cpu": {"1", "2"},
        "int8 on cpu": {"1", "2"},
    }
    assert set(figures["decode_s"]) == {"exact", "fast"}
    rates = [*figures["session_per_s"]["fp32 on cpu"].values(), *figures["offline_per_s"].values()]
    assert min(rates) > 0
    told = capsys.readouterr().out
    assert f"xception version 1, served in {figures['served']}" in told
    assert "int8 on cpu: images/s with decoding beside:" in told


def test_a_model_that_can_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["service", "bench", "--model-repository", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 1
    assert "can't measure: can't read" in capsys.readouterr().err
