"""Requests as bytes, and what comes back on a bare connection."""

from __future__ import annotations

import io
import re
import socket

from PIL import Image

from tests.server import Server

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


def statuses(connection: socket.socket, count: int = 1000) -> list[bytes]:
    """Return the statuses of the first ``count`` answers, or of all until the server closes the connection."""
    answer, found = b"", list[bytes]()
    while len(found) < count and (chunk := connection.recv(65536)):
        answer += chunk
        found = re.findall(rb"HTTP/1.1 (\d+)", answer)
    return found[:count]


def upload(body: bytes, *headers: bytes) -> bytes:
    head = b"POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
    return head + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def picture(width: int) -> bytes:
    """Return a picture that takes 3 ``width``² bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, width), "grey").save(file, "PNG", compress_level=0)
    return file.getvalue()


def is_answered(connection: socket.socket) -> bool:
    """Send a request on a connection that stays open, and return whether it is answered."""
    connection.sendall(HEALTH)
    answer = b""
    while not answer.endswith(b"}") and (chunk := connection.recv(65536)):
        answer += chunk
    return answer.startswith(b"HTTP/1.1 200")


def assert_live(server: Server) -> None:
    with server.client() as client:
        assert client.get("/health/live").status_code == 200
