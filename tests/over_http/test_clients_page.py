"""The examples of docs/clients.md, run as they stand but for the address and the photo."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tests.clients_page import example
from tests.server import Server


def replacements(server: Server, photo: Path) -> dict[str, str]:
    return {"127.0.0.1:8000": server.url.removeprefix("http://"), "photo.jpg": str(photo)}


def test_python(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    code = example("Python", replacements(server, photo))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert re.fullmatch(r" 9\d\.\d%  plate", done.stdout.splitlines()[0])


class Refusing(httpx2.HTTPTransport):
    """Refuses some requests, and lets the rest through to the server."""

    def __init__(self, times: int, seconds: str) -> None:
        super().__init__()
        self.left = times
        self.seconds = seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.left -= 1
        if self.left < 0:
            return super().handle_request(request)
        return httpx2.Response(429, headers={"Retry-After": self.seconds}, json={"title": "Busy", "detail": "too busy"})


def test_python_comes_back_when_told_to_and_no_later_than_is_worth_it(server: Server, model_repository: Path) -> None:
    photo = model_repository / "xception" / "1" / "golden" / "0.jpg"
    names: dict[str, Any] = {}
    exec(example("Python", replacements(server, photo)), names)  # noqa: S102 - our own documentation
    slept: list[float] = []
    names["time"] = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    with httpx2.Client(base_url=server.url, transport=Refusing(2, "3")) as client:
        answer = names["classify"](client, photo.read_bytes(), model="xception")
        assert answer["predictions"][0]["label"] == "plate"
        assert slept == [3.0, 3.0]
        with pytest.raises(ValueError, match="Bad Request: not an image"):
            names["classify"](client, b"no picture", model="xception")
    refused = httpx2.Client(base_url=server.url, transport=Refusing(9, "31"))
    with refused as client, pytest.raises(TimeoutError, match="too busy"):
        names["classify"](client, photo.read_bytes(), model="xception")
    assert slept == [3.0, 3.0, 31.0]


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
