"""Input that never reaches the application: too many connections, heads that trickle or never end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server import Server, received, serving

CONNECTIONS = 4


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, body_timeout_ms=250) as running:
        yield running


@pytest.fixture(scope="module")
def small_server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, max_connections=CONNECTIONS, max_body_bytes_in_flight=1000) as running:
        yield running


def is_answered(connection: socket.socket) -> bool:
    """Send a request on a connection that stays open, and return whether it is answered."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}") and (chunk := connection.recv(65536)):
        answer += chunk
    return answer.startswith(b"HTTP/1.1 200")


def assert_live(server: Server) -> None:
    with server.client() as client:
        assert client.get("/health/live").status_code == 200


def test_a_connection_too_many_is_told_so(small_server: Server) -> None:
    with ExitStack() as stack:
        open_ones = [stack.enter_context(small_server.connect()) for _ in range(CONNECTIONS)]
        assert all(map(is_answered, open_ones))  # so the server has seen all connections
        one_more = stack.enter_context(small_server.connect())
        one_more.sendall(b"GET /models HTTP/1.1\r\nHost: test\r\n\r\n")
        status, body = received(one_more)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert json.loads(body)["type"] == "urn:inferception:error:too-many-connections"
        assert is_answered(open_ones[0])
        assert is_answered(stack.enter_context(small_server.connect()))  # health checks are answered on any connection
    assert_live(small_server)


def test_twice_too_many_connections_are_closed_unheard(small_server: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(small_server.connect()) for _ in range(2 * CONNECTIONS + 1)]
        assert silent[-1].recv(1000) == b""
        assert is_answered(silent[0])
    assert_live(small_server)


def test_a_body_too_many_is_refused_and_counted_as_shed(small_server: Server) -> None:
    with small_server.client() as client:
        answer = client.post("/classify?model=xception", content=b"x" * 1001, headers={"Content-Type": "image/jpeg"})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert 'inferception_shed_total{model="xception",reason="QueueFull"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("sent", [b"", b"POST /classify HTTP/1.1\r\nHost: te"])
def test_a_head_that_stops_coming_is_cut_off(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(1000) == b""
    assert_live(server)


def test_blank_lines_between_requests_hold_no_connection(server: Server) -> None:
    with server.connect() as connection:
        assert is_answered(connection)
        connection.sendall(b"\r\n")
        assert connection.recv(1000) == b""
    assert_live(server)


def test_a_body_that_nobody_reads_is_cut_off(server: Server) -> None:
    """The server refuses a wrong parameter before it reads the body. The rest of the body never comes."""
    with server.connect() as connection:
        head = b"POST /classify?top_k=0 HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head)
        assert received(connection)[0].startswith("HTTP/1.1 422")
    assert_live(server)


def test_a_head_without_end_is_refused(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: " + b"x" * 70_000)
        status, body = received(connection)
    assert status == "HTTP/1.1 431 Request Header Fields Too Large"
    assert "65536 bytes" in json.loads(body)["detail"]
    assert_live(server)


def test_what_is_not_http_is_told_so(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        status, body = received(connection)
    assert status == "HTTP/1.1 400 Bad Request"
    assert json.loads(body)["status"] == 400
    with server.client() as client:
        assert 'inferception_connections_refused_total{reason="bad request"}' in client.get("/metrics").text
