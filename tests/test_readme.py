"""The claims of the README are true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

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


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 100


def test_its_make_targets_exist() -> None:
    makefile = Path("Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()
