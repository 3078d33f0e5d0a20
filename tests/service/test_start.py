"""What a real server process says when its models are loaded, and how it stops before that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.errors import StartupError
from tests.server import serving
from tests.service.version_copies import repository


@pytest.mark.parametrize(
    ("host", "announced"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::1", "[::1]"),
        ("::", "[::1]"),
    ],
)
def test_the_announced_address_answers(model_repository: Path, tmp_path: Path, host: str, announced: str) -> None:
    with (
        serving(repository(tmp_path, model_repository, 1), host=host, device="cpu") as server,
        server.client() as client,
    ):
        assert server.url.rpartition(":")[0] == f"http://{announced}"
        assert client.get("/health/ready").status_code == 200


def test_a_version_that_failed_answers_with_its_reason(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2)
    (models / "xception" / "2" / "labels.txt").unlink()
    with serving(models, device="cpu") as server, server.client() as client:
        photo = (models / "xception/1/golden/0.jpg").read_bytes()
        for version, status in ((1, 200), (2, 503), (3, 404)):
            answer = client.post(f"/classify?version={version}", content=photo, headers={"Content-Type": "image/jpeg"})
            assert answer.status_code == status
            if version == 2:
                assert answer.headers["content-type"] == "application/problem+json"
                assert "labels.txt: No such file" in answer.json()["detail"]


def test_a_server_that_is_not_ready_says_what_it_does_not_serve(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    (models / "inception_v4" / "1").mkdir(parents=True)
    (models / "inception_v4" / "1" / "manifest.json").write_text("{")
    with (
        pytest.raises(StartupError, match=r"listens at http://127\.0\.0\.1:\d+, but it is not ready: inception_v4/1: "),
        serving(models, device="cpu"),
    ):
        pass


def test_a_stop_while_models_are_loaded_is_no_error(model_repository: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", f"--model-repository={model_repository}", "--device=cpu"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(  # noqa: S603
        [*command, f"--port={port}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )
    watchdog = threading.Timer(60, server.kill)
    watchdog.start()
    try:
        while server.poll() is None:  # until it answers, which it does before anything is loaded
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    asking.sendall(b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    assert b" 503 " in asking.recv(65536)
                    break
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate()
    finally:
        watchdog.cancel()
    assert server.returncode == 0
    assert "draining" in said
    assert "ready at" not in said
    assert "Traceback" not in said
    assert "ERROR" not in said
