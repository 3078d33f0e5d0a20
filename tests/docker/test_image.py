"""The contents and the limits of a built service image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container import ENGINE, IMAGE, LOCKED_DOWN, engine
from tests.server import Server, serving

SIZE_LIMIT = 700_000_000


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [*ENGINE, "run", *LOCKED_DOWN, "--entrypoint=python", IMAGE, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    (found,) = json.loads(engine("image", "inspect", IMAGE))
    result: dict[str, Any] = found
    return result


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository) as running:
        yield running


def test_it_is_small(image: dict[str, Any]) -> None:
    assert image["Size"] < SIZE_LIMIT


def test_it_says_what_it_is(image: dict[str, Any]) -> None:
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Inferception"
    assert labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.revision"]


def test_it_holds_only_what_serving_and_measuring_need() -> None:
    done = python(
        "import importlib.util as u, os, shutil\n"
        "modules = 'service bench onnxruntime torch onnx models export tests'.split()\n"
        "print([name for name in modules if u.find_spec(name)], os.listdir('/models'))\n"
        "print([tool for tool in ('gcc', 'cc', 'make', 'git', '/venv/bin/pip') if shutil.which(tool)])"
    )
    assert done.stdout.splitlines() == ["['service', 'bench', 'onnxruntime'] []", "[]"], done.stderr


def test_it_runs_as_nobody_and_can_write_nowhere() -> None:
    done = python(
        "import os\n"
        "writable = [path for path in ('/', '/app', '/venv', '/models') if os.access(path, os.W_OK)]\n"
        "print(os.getuid(), os.getgid(), writable)"
    )
    assert done.stdout == "10001 10001 []\n", done.stderr


def test_its_health_check_tells_ready_from_not(image: dict[str, Any], server: Server) -> None:
    (kind, *check) = (image["Config"].get("Healthcheck") or image["Healthcheck"])["Test"]  # docker, podman
    assert kind == "CMD"
    name = "inferception-" + server.url.rpartition(":")[2]
    assert engine("exec", name, *check) == ""
    with pytest.raises(subprocess.CalledProcessError):
        engine("exec", "--env=INFERCEPTION_PORT=1", name, *check)  # nothing listens on port 1
