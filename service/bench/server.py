"""A server in a process of its own: started, followed until it says that it is ready, stopped."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from service.errors import StartupError

START_S = 120.0


@dataclass
class Server:
    """A process that announces ``ready at http://...``; ``url`` is known once it has."""

    process: subprocess.Popen[str]
    url: str = ""
    output: list[str] = field(default_factory=list)
    announced: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Collect the output until the process ends."""
        for line in self.process.stdout or ():
            self.output.append(line)
            if self.url:  # a load test runs beside this
                continue
            found = re.search(r"ready at (http://\S+)", line)
            if found:
                self.url = found[1].replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - a container listens on all
                self.announced.set()
        self.announced.set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), parts.port or 80

    def connect(self) -> socket.socket:
        """Open a connection, for what is too slow or too tame in an HTTP client."""
        return socket.create_connection(self.address, timeout=30)

    def peak_bytes(self) -> int | None:
        """Return the most memory that was resident at a time; None where there is no /proc."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return int(found[1]) * 1024 if found else None


S = TypeVar("S", bound=Server)


@contextmanager
def running(kind: type[S], command: Sequence[str], environment: Mapping[str, str]) -> Iterator[S]:
    """Run ``command``, wait until it announces a server, and in the end stop it by SIGTERM.

    Raises StartupError if it never does.
    """
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command,
        env=dict(environment) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = kind(process)
    follower = threading.Thread(target=server.follow)
    follower.start()
    try:
        if not server.announced.wait(START_S):
            raise StartupError(f"a server did not start within {START_S:g} s")
        if not server.url:
            raise StartupError(f"a server did not start; it said: {''.join(server.output)}")
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
