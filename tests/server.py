"""A real server process on a free port, for tests and load runs; in a container if the environment names an image."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests import container

START_S = 120.0


@dataclass
class Server:
    """``python -m service serve``; ``url`` is known once it has announced that it is ready."""

    process: subprocess.Popen[str]
    url: str = ""
    output: list[str] = field(default_factory=list)
    announced: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Collect the output until the process ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if self.url:  # a load test runs beside this
                continue
            found = re.search(r"ready at (http://\S+)", line)
            if found:
                self.url = found[1].replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - a container listens on all
                self.announced.set()
        self.announced.set()

    def client(self, timeout: float = 60.0) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=timeout)


def connected(server: Server) -> socket.socket:
    """Open a connection for what no HTTP client would send."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def received(connection: socket.socket) -> tuple[str, bytes]:
    """Return the status line and the body of what comes until the server closes the connection."""
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().partition("\r\n")[0], body


@contextmanager
def serving(model_repository: Path, **settings: object) -> Iterator[Server]:
    """Start a server, wait until it is ready, stop it by SIGTERM; AssertionError with its output if it never is."""
    # Not the caller's own settings: a test says what it needs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")}
    chosen = {f"INFERCEPTION_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={model_repository}"]
    process = subprocess.Popen(  # noqa: S603 - our own command line
        container.serve_command(model_repository, chosen) if container.IMAGE else command,
        env=environment | chosen | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with following(process) as server:
        yield server


@contextmanager
def following(process: subprocess.Popen[str]) -> Iterator[Server]:
    """Wait until the process announces a server; in the end stop it by SIGTERM. AssertionError if it never does."""
    server = Server(process)
    follower = threading.Thread(target=server.follow)
    follower.start()
    try:
        assert server.announced.wait(START_S), "the server did not start in time"
        assert server.url, "".join(server.output)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()  # does nothing, unless the drain hangs
            process.wait()
            follower.join()
            process.stdout.close()  # type: ignore[union-attr] # it is a pipe
