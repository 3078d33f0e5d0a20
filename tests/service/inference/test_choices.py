from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.inference import choices
from service.inference.choices import Choice, Choices

TODAY = date(2026, 11, 25)
CHOICE = Choice(seconds={"fp32 on cpu": 0.09, "int8 on cpu": 0.0244}, measured=TODAY)
DEPENDS_ON = {"files": {"fp32 on cpu": "ab", "int8 on cpu": "cd"}, "threads": [2, 1]}


def test_a_choice_is_remembered_for_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Choices(tmp_path / "choices")
    assert kept.recall(DEPENDS_ON) is None
    kept.remember(DEPENDS_ON, CHOICE)
    assert Choices(tmp_path / "choices").recall(dict(reversed(DEPENDS_ON.items()))) == CHOICE
    assert kept.recall(DEPENDS_ON | {"threads": [1, 1]}) is None
    assert [path.suffix for path in (tmp_path / "choices").iterdir()] == [".json"]
    (tmp_path / "cpuinfo").write_text("model name\t: another\nflags\t\t: avx\ncpu MHz\t: 1\nmodel name\t: another\n")
    monkeypatch.setattr(choices, "_CPUINFO", tmp_path / "cpuinfo")
    assert kept.recall(DEPENDS_ON) is None
    kept.remember(DEPENDS_ON, CHOICE)
    (tmp_path / "cpuinfo").write_text("model name\t: another\nflags\t\t: avx\ncpu MHz\t: 2\n")
    assert kept.recall(DEPENDS_ON) == CHOICE  # its clock changes all the time


def test_a_machine_that_tells_nothing_of_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_CPUINFO", tmp_path / "missing")
    Choices(tmp_path).remember(DEPENDS_ON, CHOICE)
    assert Choices(tmp_path).recall(DEPENDS_ON) == CHOICE


@pytest.mark.parametrize("damaged", ["", '{"seconds": {}, "measured": "2026-11-25"}', '{"measured": "today"}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damaged: str) -> None:
    kept = Choices(tmp_path)
    kept.remember(DEPENDS_ON, CHOICE)
    (file,) = tmp_path.iterdir()
    file.write_text(damaged)
    assert kept.recall(DEPENDS_ON) is None
    kept.remember(DEPENDS_ON, CHOICE)
    assert kept.recall(DEPENDS_ON) == CHOICE


def test_nothing_is_remembered_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Choices(None).remember(DEPENDS_ON, CHOICE)
    assert Choices(None).recall(DEPENDS_ON) is None
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO, "inferception"):
        Choices(tmp_path / "file").remember(DEPENDS_ON, CHOICE)
    assert "can't keep what was measured, so the next start measures again: " in caplog.text


def test_the_fastest_is_the_best_unless_an_earlier_one_is_as_fast() -> None:
    assert CHOICE.best == "int8 on cpu"
    assert Choice(seconds={"a": 0.109, "b": 0.1}, measured=TODAY).best == "a"
    assert Choice(seconds={"a": 0.112, "b": 0.1}, measured=TODAY).best == "b"
    assert str(CHOICE) == (
        "int8 on cpu is fastest, give or take 10% (an image takes fp32 on cpu 90 ms, int8 on cpu 24 ms, "
        "measured on 2026-11-25)"
    )
    with pytest.raises(ValidationError):
        Choice(seconds={}, measured=TODAY)
