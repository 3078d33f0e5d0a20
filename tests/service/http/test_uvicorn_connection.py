"""Too many connections, heads that trickle or never end, and clients that do not read."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server import Server, received, serving
from tests.service.http.raw import CHUNKED, assert_live, is_answered, picture, statuses, upload

CONNECTIONS = 4


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, body_timeout_ms=250) as running:
        yield running


@pytest.fixture(scope="module")
def small_server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, max_connections=CONNECTIONS, max_body_bytes_in_flight=1000) as running:
        yield running


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


def test_a_connection_far_too_many_takes_the_place_of_an_idle_one(small_server: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(small_server.connect()) for _ in range(2 * CONNECTIONS)]
        assert all(map(is_answered, silent))
        assert is_answered(stack.enter_context(small_server.connect()))
        closed = select.select(silent, [], [], 30)[0]
        assert [connection.recv(1000) for connection in closed] == [b""]
    assert_live(small_server)


def test_a_body_too_many_is_refused_and_counted_as_shed(small_server: Server) -> None:
    with small_server.client() as client:
        answer = client.post("/classify?model=xception", content=b"x" * 1001, headers={"Content-Type": "image/jpeg"})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        shed = 'inferception_shed_total{model="xception",reason="QueueFull",version="1"} 1.0'
        assert shed in client.get("/metrics").text


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


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", CHUNKED + b"0\r\n", CHUNKED + b"1\r\nx\r\n0\r\n"])
def test_header_fields_without_end_are_refused(server: Server, start: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(start + b"X: y\r\n" * 70_000)
        assert statuses(connection) == [b"431"]
    assert_live(server)


@pytest.mark.parametrize("start", [CHUNKED + b"1;", CHUNKED + b"1\r\nx\r\n1;", b"\r\n" * 40_000])
def test_what_frames_a_body_without_end_is_refused(server: Server, start: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(start + b"a" * 400_000)
        assert statuses(connection) == [b"431"]
    assert_live(server)


def test_a_head_of_64_kib_is_the_largest(server: Server) -> None:
    for size, status in ((65_536, b"200"), (65_537, b"431")):
        head = b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX: %b\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head % (b"x" * (size - len(head) + 2)))
            assert statuses(connection) == [status]


def test_a_body_that_comes_slowly_is_read_for_as_long_as_it_comes(model_repository: Path) -> None:
    body = picture(100)
    parts = [upload(body)[: -len(body)], *(body[at : at + 5_000] for at in range(0, 25_000, 5_000)), body[25_000:]]
    with serving(model_repository, body_timeout_ms=1500) as server, server.connect() as connection:
        for part in parts:
            connection.sendall(part)
            pause = time.monotonic() + 0.55  # with six of them, the request takes longer than a head may
            while time.monotonic() < pause:
                assert_live(server)
        assert statuses(connection, 1) == [b"200"]


def test_a_client_that_does_not_read_is_cut_off(server: Server) -> None:
    def open_files() -> float:
        with server.client() as client:
            return float(re.findall(r"^process_open_fds (\S+)", client.get("/metrics").text, re.MULTILINE)[0])

    before = open_files()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        connection.connect(server.address)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n" * 1000)
        assert connection.recv(1)
        patience = time.monotonic() + 60
        while open_files() > before:
            assert time.monotonic() < patience
