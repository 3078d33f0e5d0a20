"""Requests behind one another, upgrades, and what is no HTTP: each message is answered as what it is, in its turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server, serving
from tests.service.http.raw import CHUNKED, HEALTH, assert_live, picture, statuses, upload


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, body_timeout_ms=2000) as running:
        yield running


def test_an_upload_in_many_chunks_is_answered(server: Server) -> None:
    """The sizes of the chunks and the ends of the lines together are larger than what may stand between two chunks."""
    body = picture(150)
    chunks = b"".join(b"1;extension=%d\r\n" % i + body[i : i + 1] + b"\r\n" for i in range(len(body)))
    with server.connect() as connection:
        connection.sendall(CHUNKED + chunks + b"0\r\nTrailer: x\r\n\r\n" + HEALTH)
        assert statuses(connection, 2) == [b"200", b"200"]


def test_uploads_behind_one_another_are_answered_in_turn(server: Server) -> None:
    request = upload(picture(200))
    with server.connect() as connection:
        connection.sendall(request + request[:40])
        assert statuses(connection, 1) == [b"200"]
        connection.sendall(request[40:] + HEALTH + request + HEALTH)
        assert statuses(connection, 4) == [b"200"] * 4


def test_requests_without_end_are_read_no_faster_than_answered(server: Server) -> None:
    before = server.resident_bytes() or 0
    with server.connect() as connection:
        connection.sendall(HEALTH * 50_000)
        assert statuses(connection, 1000) == [b"200"] * 1000
        assert_live(server)
        assert (server.resident_bytes() or 0) - before < 40e6
    assert_live(server)


@pytest.mark.parametrize("junk", [b"\x16\x03\x01 no request\r\n", b"GET /\x01 HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("good", [HEALTH, upload(picture(100))])
def test_a_good_request_is_answered_before_what_is_none(server: Server, good: bytes, junk: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(good + junk)
        assert statuses(connection) == [b"200", b"400"]
    assert_live(server)


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket\r\nSec-WebSocket-Version: 13"])
@pytest.mark.parametrize("name", [b"Upgrade:", b"uPGRADE:\t"])
def test_an_upgrade_is_ignored(server: Server, protocol: bytes, name: bytes) -> None:
    """A body in a later packet is no request, wherever the head was cut, and whatever the body says."""
    request = upload(picture(100), b"Connection: Upgrade, HTTP2-Settings", name + protocol)
    smuggled = upload(b"GET /models/smuggled HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", b"Connection: Upgrade", name + protocol)
    field = request.index(name)
    for cut in (len(request), *range(field - 4, field + 12), request.index(b"\r\n\r\n") + 4):
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request[:cut])
            assert_live(server)  # so the server has read what was sent
            connection.sendall(request[cut:] + smuggled + HEALTH)
            assert statuses(connection, 3) == [b"200", b"400", b"200"]


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health/live HTTP/2.0\r\nHost: test\r\n\r\n",
        b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n" + HEALTH,
        b"GET /\n\n",
        CHUNKED + b"zz\r\n",
        b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HEALTH,
        b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + HEALTH,
    ],
)
def test_what_is_no_request_of_http_1_is_refused(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        assert statuses(connection) == [b"400"]
    assert_live(server)
