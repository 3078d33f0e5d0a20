"""The examples of docs/clients.md, run as they stand but for the address and the photo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clients_page import example
from tests.server import Server


def replacements(server: Server, photo: Path) -> dict[str, str]:
    return {"127.0.0.1:8000": server.url.removeprefix("http://"), "photo.jpg": str(photo)}


def test_tritonclient(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    code = example("tritonclient", replacements(server, photo))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert ":plate" in done.stdout.splitlines()[0]


def test_curl(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    command = example("curl", replacements(server, photo))
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True)  # noqa: S603
    assert done.stdout.startswith(b'{"model_name":"xception","model_version":"1"')
