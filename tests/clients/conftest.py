"""A real server for clients that have an environment of their own. The server runs in the service's environment.

``make test-clients`` runs these tests. Where the clients are not installed, this folder holds no tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.server import Server, running

if importlib.util.find_spec("kserve") is None:
    collect_ignore_glob = ["test_*.py"]

REPOSITORY = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))


class Sample(NamedTuple):
    """A photo and the label of its right answer."""

    photo: bytes
    label: str


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    """The server's settings beside the defaults. A module may have a fixture of this name with others."""
    return {}


@pytest.fixture(scope="module")
def server(settings: Mapping[str, object]) -> Iterator[Server]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")}
    chosen = {"port": 0, "model_repository": REPOSITORY, **settings}
    environment |= {f"INFERCEPTION_{name.upper()}": str(value) for name, value in chosen.items()}
    with running(Server, [".venv/bin/python", "-m", "service", "serve"], environment) as started:
        yield started


@pytest.fixture(scope="session")
def sample() -> Sample:
    folder = REPOSITORY / "xception" / "1"
    golden = json.loads((folder / "manifest.json").read_text())["golden"][0]
    return Sample((folder / golden["file"]).read_bytes(), golden["top_k"][0]["label"])


@pytest.fixture(scope="session")
def labels() -> list[str]:
    return (REPOSITORY / "xception" / "1" / "labels.txt").read_text().splitlines()
