"""A server that speaks the hub's protocol, breaks connections on demand, and counts requests."""

from __future__ import annotations

import hashlib
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_PATH = "/someone/model/resolve/main/weights/model.safetensors"


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` by path, with the hub's headers. The next ``drop`` GET requests break half way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.published_sha256: str | None = None  # None means the right sha256
        self.drop = 0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        self.server.requests.append(f"{self.command} {self.path} from {first}")
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        rest = content[int(first) :]
        self.send_response(200 if first == "0" else 206)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{self.server.published_sha256 or hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and self.server.drop:
            self.server.drop -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
        elif body:
            self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep the test's output clean."""
