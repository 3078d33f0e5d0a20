"""A real server under pictures that are made to hold, fill or crash it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.bombs import BOMBS, many_scans, png
from tests.server import Server, serving

SLOW = many_scans(6000, 400)
HEALTH_S = 1.0  # far more than a check takes, far less than a bomb would take


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, default_model="xception", device="cpu") as running:
        yield running


def test_a_damaged_picture_leaves_nothing_behind(server: Server) -> None:
    damaged = png(7000, 7000)[:-2000]
    with server.client() as client:

        def send() -> int | None:
            answer = client.post("/classify", content=damaged)
            assert answer.status_code == 400, answer.text
            return server.resident_bytes()

        sizes = [send() or 0 for _ in range(25)]
    assert sizes[-1] < sizes[4] + 20_000_000


def test_health_answers_while_bombs_of_all_kinds_arrive(server: Server) -> None:
    bombs = [build() for build, _ in BOMBS.values()]

    def send(bomb: bytes) -> int:
        with server.client() as client:
            return client.post("/classify", content=bomb, params={"timeout_ms": 2000}).status_code

    slowest = 0.0
    with ThreadPoolExecutor(4) as clients, server.client() as client:
        sent = [clients.submit(send, bomb) for bomb in bombs]
        while not all(future.done() for future in sent):
            start = time.monotonic()
            assert client.get("/health/ready").status_code == 200
            slowest = max(slowest, time.monotonic() - start)
    assert {future.result() for future in sent} <= {200, 400, 413, 429, 504}
    assert slowest < HEALTH_S
    assert (server.peak_mb() or 0.0) < 2000


def test_a_picture_without_end_does_not_keep_the_server_from_ending(model_repository: Path) -> None:
    started = serving(model_repository, default_model="xception", device="cpu", drain_grace_ms=0)
    with started as server, server.client() as client, ThreadPoolExecutor(1) as other:
        sent = other.submit(client.post, "/classify", content=SLOW, params={"timeout_ms": 3000})
        with server.client() as observer:
            while 'inferception_decoders_busy{pictures="unusual"} 1.0' not in observer.get("/metrics").text:
                assert not sent.done()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert sent.result().status_code == 504
