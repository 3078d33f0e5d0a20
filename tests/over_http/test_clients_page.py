"""The examples of docs/clients.md, run as they stand but for the address and the photo."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.server import Server

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def example(title: str, server: Server, photo: Path) -> str:
    """Return the first indented block of a section."""
    section = PAGE.read_text().partition(f"## {title}\n")[2]
    block = re.search(r"(?:^ {4}.*\n|^\n(?= {4}))+", section, re.MULTILINE)
    assert block is not None
    text = textwrap.dedent(block[0])
    address = server.url.removeprefix("http://")
    assert "127.0.0.1:8000" in text
    assert "photo.jpg" in text
    return text.replace("127.0.0.1:8000", address).replace("photo.jpg", str(photo))


def test_tritonclient(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    code = example("tritonclient", server, photo)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert ":plate" in done.stdout.splitlines()[0]


def test_curl(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    command = example("curl", server, photo)
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True)  # noqa: S603
    assert done.stdout.startswith(b'{"model_name":"xception","model_version":"1"')
