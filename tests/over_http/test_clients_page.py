"""The examples of docs/clients.md, run as they stand but for the address and the photo."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tests.server import Server

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def example(title: str, server: Server, photo: Path) -> str:
    """Return the first indented block of a section."""
    section = PAGE.read_text().partition(f"## {title}\n")[2]
    block = re.search(r"(?:^ {4}.*\n|^\n+(?= {4}))+", section, re.MULTILINE)
    assert block is not None
    text = textwrap.dedent(block[0])
    address = server.url.removeprefix("http://")
    assert "127.0.0.1:8000" in text
    assert "photo.jpg" in text
    return text.replace("127.0.0.1:8000", address).replace("photo.jpg", str(photo))


def test_python(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    code = example("Python", server, photo)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert re.fullmatch(r" 9\d\.\d%  plate", done.stdout.splitlines()[0])


def test_python_comes_back_when_told_to_and_no_later_than_is_worth_it(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    names: dict[str, Any] = {}
    exec(example("Python", server, photo), names)  # noqa: S102 - our own documentation
    slept: list[float] = []
    names["time"] = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)

    def refusing(times: int, seconds: str) -> httpx2.Client:
        """Return a client of the real server that gets some refusals first."""
        left, real = iter(range(times)), httpx2.HTTPTransport()

        def answer(request: httpx2.Request) -> httpx2.Response:
            if next(left, None) is None:
                return real.handle_request(request)
            return httpx2.Response(429, headers={"Retry-After": seconds}, json={"title": "Busy", "detail": "too busy"})

        return httpx2.Client(base_url=server.url, transport=httpx2.MockTransport(answer))

    with refusing(2, "3") as client:
        assert names["classify"](client, photo.read_bytes(), model="xception")["predictions"][0]["label"] == "plate"
        assert slept == [3.0, 3.0]
        with pytest.raises(ValueError, match="Bad Request: not an image"):
            names["classify"](client, b"no picture", model="xception")
    with refusing(9, "31") as client, pytest.raises(TimeoutError, match="too busy"):
        names["classify"](client, photo.read_bytes(), model="xception")
    assert slept == [3.0, 3.0, 31.0]


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
