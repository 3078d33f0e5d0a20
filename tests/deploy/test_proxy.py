"""HAProxy with the repository's configuration in front of two real servers."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from service.settings import Settings
from tests.deploy.programs import libraries, program
from tests.server import Server, serving

CONFIGURATION = Path("docker/haproxy.cfg").read_text(encoding="utf-8")
REPLICAS = int(re.findall(r"server-template replica- (\d+)", CONFIGURATION)[0])
JPEG = {"Content-Type": "image/jpeg"}


@contextmanager
def proxying(first: Server, second: Server, folder: Path) -> Iterator[httpx2.Client]:
    """Start HAProxy on a free port, with its log in ``folder``. ``first`` is its service, ``second`` every replica."""
    listener = socket.create_server(("127.0.0.1", 0))
    text = CONFIGURATION.replace("bind :8080", f"bind fd@{listener.fileno()}")
    for name, server in (("service", first), ("replica", second)):
        text = text.replace(f" {name}:8000", f" {urlsplit(server.url).netloc}")
    file = folder / "haproxy.cfg"
    file.write_text(text)
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [program("haproxy"), "-db", "-f", file], env=libraries(), pass_fds=[listener.fileno()], stdout=log
        )
    url = "http://{}:{}".format(*listener.getsockname())
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)
        listener.close()


@pytest.fixture(scope="module")
def servers(model_repository: Path) -> Iterator[list[Server]]:
    settings = {"max_batch_size": 1, "default_model": "xception"}
    with serving(model_repository, **settings) as first, serving(model_repository, **settings) as second:
        yield [first, second]


@pytest.fixture
def client(servers: list[Server], tmp_path: Path) -> Iterator[httpx2.Client]:
    with proxying(servers[0], servers[1], tmp_path) as open_client:
        while open_client.get("/health/ready").status_code != 200:  # HAProxy's first health check has not ended
            pass
        yield open_client


@pytest.fixture(scope="module")
def photo(kitchenware_photos: list[tuple[Path, str | None]]) -> bytes:
    return kitchenware_photos[0][0].read_bytes()


def total(servers: list[Server], metric: str) -> float:
    """The sum of a metric's series on all servers."""
    return sum(
        float(value)
        for server in servers
        for value in re.findall(rf"^{metric}.* (\S+)$", httpx2.get(f"{server.url}/metrics").text, re.MULTILINE)
    )


def test_answers_come_through(client: httpx2.Client, photo: bytes) -> None:
    assert client.post("/classify", content=photo, headers=JPEG).status_code == 200


def test_a_refusal_is_passed_on_and_not_tried_again(client: httpx2.Client, servers: list[Server], photo: bytes) -> None:
    before = total(servers, "inferception_shed_total")
    answer = client.post("/classify?timeout_ms=1", content=photo, headers=JPEG)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert total(servers, "inferception_shed_total") == before + 1


def test_an_upload_is_not_held_back(client: httpx2.Client) -> None:
    """The server answers before most of the body is sent, so HAProxy has passed the beginning on."""
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port)) as upload:
        head = b"POST /classify?timeout_ms=500 HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
        upload.sendall(head + b"Content-Length: 1000000\r\n\r\n" + b"\xff" * 1000)
        assert upload.recv(12) in {b"HTTP/1.1 504", b"HTTP/1.1 429"}


def test_a_client_that_leaves_takes_its_request_with_it(
    client: httpx2.Client, servers: list[Server], photo: bytes
) -> None:
    before = total(servers, "inferception_disconnected_total")
    form = client.build_request("POST", "/classify", files=[("file", photo)] * 16)
    head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: {form.headers['content-type']}\r\n"
    body = form.read()
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port)) as leaver:
        leaver.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while total(servers, "inferception_queue_depth") == 0:
            pass
    while total(servers, "inferception_queue_depth") and total(servers, "inferception_disconnected_total") == before:
        pass
    assert total(servers, "inferception_disconnected_total") == before + 1


def test_a_server_that_drains_costs_nobody_an_answer(
    model_repository: Path, servers: list[Server], tmp_path: Path, photo: bytes
) -> None:
    def replicas_out() -> int:
        return len(re.findall(r"servers/replica-\d+ is DOWN", (tmp_path / "haproxy.log").read_text()))

    with (
        serving(model_repository, max_batch_size=1, default_model="xception", drain_grace_ms=20_000) as leaving,
        proxying(servers[0], leaving, tmp_path) as client,
    ):
        leaving.process.send_signal(signal.SIGTERM)
        while replicas_out() < REPLICAS:  # every replica is the leaving server, with its own checks
            pass
        answers = [client.post("/classify", content=photo, headers=JPEG).status_code for _ in range(4)]
        leaving.process.send_signal(signal.SIGTERM)  # a second signal stops the server at once
        leaving.process.wait(10)
        answers += [client.post("/classify", content=photo, headers=JPEG).status_code for _ in range(4)]
    assert set(answers) == {200}


def test_it_waits_longer_than_any_deadline() -> None:
    waits = re.search(r"timeout server (\d+)s", CONFIGURATION)
    assert waits is not None
    assert int(waits[1]) * 1000 > Settings.model_fields["max_timeout_ms"].default
