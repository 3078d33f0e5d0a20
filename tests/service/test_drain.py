"""Signals to a real server process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from bench.server import running
from tests.server import Server, serving

CLIENTS = 8


@pytest.fixture
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, max_batch_size=2, drain_grace_ms=2_000) as running:
        yield running


def test_accepted_work_is_finished_and_new_work_refused(
    server: Server, kitchenware_photos: list[tuple[Path, str | None]]
) -> None:
    photo = kitchenware_photos[0][0].read_bytes()

    def ask(client: httpx2.Client) -> httpx2.Response:
        return client.post("/classify?model=xception", content=photo, headers={"Content-Type": "image/jpeg"})

    with server.client() as observer, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [server.client() for _ in range(CLIENTS)]
        accepted = [pool.submit(ask, client) for client in clients]
        while 'inferception_queue_depth{model="xception"} 0.0' in observer.get("/metrics").text:
            pass
        server.process.send_signal(signal.SIGTERM)
        ready = observer.get("/health/ready")
        while ready.status_code == 200:  # until the server has the signal
            ready = observer.get("/health/ready")
        assert ready.status_code == 503
        assert ready.headers["connection"] == "close"
        with server.client() as newcomer:
            refused = ask(newcomer)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert "shutting down" in refused.json()["detail"]
        assert {answer.result().status_code for answer in accepted} <= {200, 503}
        assert 200 in {answer.result().status_code for answer in accepted}
    assert server.process.wait(30) == 0


def test_a_second_signal_exits_at_once(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    with server.client() as client:
        while client.get("/health/ready").status_code == 200:
            pass
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 128 + signal.SIGTERM  # a drain would exit with 0


def test_no_connection_keeps_a_drain_from_ending(model_repository: Path) -> None:
    """Clients that are idle, that stop in a head or a body, and that read no answer or only a byte at a time."""
    limits = {"drain_grace_ms": 0, "max_timeout_ms": 1000, "body_timeout_ms": 1000}
    post = b"POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    with serving(model_repository, **limits) as server, ExitStack() as stack:
        for sent in (b"", b"GET / HT", post + b"Content-Length: 9\r\n\r\nx", post + b"Expect: 100-continue\r\n"):
            stack.enter_context(server.connect()).sendall(sent)
        unread, slow = (stack.enter_context(socket.socket()) for _ in range(2))
        for connection in (unread, slow):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
            connection.connect(server.address)
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n" * 1000)
        with server.client() as client:

            def answers() -> list[str]:
                return re.findall(r'requests_total\{.*"unknown".* (\S+)', client.get("/metrics").text)

            before = list[str]()
            while (now := answers()) != before or not now:  # until nothing more of the answers can be sent
                before = now
        server.process.send_signal(signal.SIGTERM)
        patience = time.monotonic() + 30
        while server.process.poll() is None:
            assert time.monotonic() < patience
            with contextlib.suppress(ConnectionResetError):
                slow.recv(1)
        assert server.process.wait() == 0


def test_a_batch_that_never_returns_does_not_keep_the_server_from_ending(
    model_repository: Path, tmp_path: Path, kitchenware_photos: list[tuple[Path, str | None]]
) -> None:
    hangs = tmp_path / "hangs"
    program = f"""
import pathlib, threading
from service import __main__
from service.http import uvicorn_server
from service.inference.session import OnnxSession
answer, hangs = OnnxSession.run, pathlib.Path({str(hangs)!r})
OnnxSession.run = lambda self, images: threading.Event().wait() if hangs.exists() else answer(self, images)
uvicorn_server._CLOSING_S = 1.0
__main__.main()
"""
    settings = ("serve", "--port=0", f"--model-repository={model_repository}", "--default-model=xception")
    patience = ("--device=cpu", "--drain-grace-ms=0", "--max-timeout-ms=500", "--body-timeout-ms=500")
    with running(Server, [sys.executable, "-c", program, *settings, *patience], os.environ) as server:
        hangs.touch()
        with server.client() as client:
            assert client.post("/classify", content=kitchenware_photos[0][0].read_bytes()).status_code == 504
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 1
