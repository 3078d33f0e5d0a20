"""Signals to a real server process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

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
