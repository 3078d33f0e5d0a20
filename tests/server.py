"""A real server process on a free port. The server runs in a container if the environment names an image."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from bench.server import Server as Process
from bench.server import running
from tests import container


class Server(Process):
    """A process that runs ``python -m service serve``."""

    def connect(self) -> socket.socket:
        """Open a bare connection, for requests that an HTTP client can't send."""
        return socket.create_connection(self.address, timeout=30)

    def client(self, timeout: float = 60.0) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=timeout)


def received(connection: socket.socket) -> tuple[str, bytes]:
    """Return the status line and the body of an answer, read until the server closes the connection."""
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().partition("\r\n")[0], body


@contextmanager
def serving(model_repository: Path, **settings: object) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it by SIGTERM. StartupError has the output of a failed start."""
    # The settings in the caller's environment are ignored: each test sets what it needs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")}
    chosen = {f"INFERCEPTION_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={model_repository}"]
    if container.IMAGE:
        command = container.serve_command(model_repository, chosen)
    with running(Server, command, environment | chosen) as server:
        yield server
