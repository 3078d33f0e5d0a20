from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.inference import choices
from service.inference.choices import Choice, recall, remember

TODAY = date(2026, 11, 25)
CHOICE = Choice(seconds={"fp32 on cpu": 0.09, "int8 on cpu": 0.0244}, measured=TODAY)
DEPENDS_ON = {"files": {"fp32 on cpu": "ab", "int8 on cpu": "cd"}, "threads": [2, 1]}


def test_a_choice_is_remembered_for_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "choices"
    assert recall(folder, DEPENDS_ON) is None
    remember(folder, DEPENDS_ON, CHOICE)
    assert recall(folder, dict(reversed(DEPENDS_ON.items()))) == CHOICE
    assert recall(folder, DEPENDS_ON | {"threads": [1, 1]}) is None
    assert [path.suffix for path in folder.iterdir()] == [".json"]
    (tmp_path / "cpuinfo").write_text("model name\t: another\nflags\t\t: avx\ncpu MHz\t: 1\nmodel name\t: another\n")
    monkeypatch.setattr(choices, "_CPUINFO", tmp_path / "cpuinfo")
    assert recall(folder, DEPENDS_ON) is None
    remember(folder, DEPENDS_ON, CHOICE)
    (tmp_path / "cpuinfo").write_text("model name\t: another\nflags\t\t: avx\ncpu MHz\t: 2\n")
    assert recall(folder, DEPENDS_ON) == CHOICE  # the CPU's clock rate changes all the time


def test_a_machine_that_tells_nothing_of_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_CPUINFO", tmp_path / "missing")
    remember(tmp_path, DEPENDS_ON, CHOICE)
    assert recall(tmp_path, DEPENDS_ON) == CHOICE


@pytest.mark.parametrize("damaged", ["", '{"seconds": {}, "measured": "2026-11-25"}', '{"measured": "today"}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damaged: str) -> None:
    remember(tmp_path, DEPENDS_ON, CHOICE)
    (file,) = tmp_path.iterdir()
    file.write_text(damaged)
    assert recall(tmp_path, DEPENDS_ON) is None
    remember(tmp_path, DEPENDS_ON, CHOICE)
    assert recall(tmp_path, DEPENDS_ON) == CHOICE


def test_nothing_is_remembered_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remember(None, DEPENDS_ON, CHOICE)
    assert recall(None, DEPENDS_ON) is None
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO, "inferception"):
        remember(tmp_path / "file", DEPENDS_ON, CHOICE)
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
