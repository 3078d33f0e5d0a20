"""What the README says is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.settings import Settings
from tests.server import serving

README = Path("README.md").read_text(encoding="utf-8")


def test_the_first_curl_gives_the_answer_shown(model_repository: Path, tmp_path: Path) -> None:
    block = re.search(r"\$ (curl .*)\n    (\{.*\})\n", README)
    assert block is not None
    command, shown = block[1], json.loads(block[2])
    (tmp_path / "model_repository").symlink_to(model_repository.resolve())
    with serving(model_repository, max_batch_size=1, default_model="xception") as server:
        command = command.replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    answer = json.loads(done.stdout)
    assert answer.keys() == shown.keys()
    for found, expected in zip(answer["predictions"], shown["predictions"], strict=True):
        assert (found["label"], found["index"]) == (expected["label"], expected["index"])
        assert found["probability"] == pytest.approx(expected["probability"], abs=0.05)  # int8 or fp32, by the machine


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", README, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        assert name in rows, f"{name} is missing from the README's settings"
        if field.default_factory is None and field.default is not None:
            assert rows[name] == f"{field.default}"


def test_every_metric_is_listed() -> None:
    exposed = {family.name for family in Metrics().registry.collect()}
    assert {name for name in exposed if f"`{name}" not in README} == set()
