"""Start a server in its own process, wait until it is ready, and stop it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from service.errors import StartupError
from service.settings import Settings

START_S = 120.0


@dataclass
class Server:
    """A process that announces its address, or that it is not ready. ``url`` is empty until it is ready.

    The service and the plain server announce ``ready at http://...``, and Triton ``"Started HTTPService at ..."``.
    """

    process: subprocess.Popen[str]
    url: str = ""
    output: list[str] = field(default_factory=list)
    announced: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Collect the output until the process ends."""
        for line in self.process.stdout or ():
            self.output.append(line)
            if self.url:  # after the announcement, this thread costs a load test little
                continue
            found = re.search(r'(?:ready at http://|Started HTTPService at )([^\s"]+)', line)
            if found:
                self.url = f"http://{found[1]}"
            if found or "it is not ready: " in line:
                self.announced.set()
        self.announced.set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), parts.port or 80

    @property
    def grpc_address(self) -> str:
        """Host and port for gRPC, of a service that has ``grpc_port``."""
        return next(found[1] for line in self.output if (found := re.search(r"gRPC at ([^)]+)\)", line)))

    def resident_bytes(self) -> int | None:
        """Return the resident memory now, in bytes. None without /proc or after the process has ended."""
        return self._memory("VmRSS")

    def peak_mb(self) -> float | None:
        """Return the peak of the resident memory, in megabytes. None if ``resident_bytes`` would return None."""
        peak = self._memory("VmHWM")
        return None if peak is None else peak / 1e6

    def _memory(self, name: str) -> int | None:
        """Return the sum over the process and its children, which decode pictures."""
        own = _memory_of(self.process.pid, name)
        if own is None:
            return None
        children = (Path(f"/proc/{self.process.pid}/task") / str(self.process.pid) / "children").read_text().split()
        return own + sum(_memory_of(int(child), name) or 0 for child in children)


def _memory_of(pid: int, name: str) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


S = TypeVar("S", bound=Server)


@contextmanager
def running(kind: type[S], command: Sequence[str], environment: Mapping[str, str]) -> Iterator[S]:
    """Run ``command``, wait until it announces a server, and stop the process by SIGTERM at the end.

    Raises StartupError if the command announces no server.
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
            process.kill()  # takes effect only if the drain hangs
            process.wait()
            follower.join()
            process.stdout.close()  # type: ignore[union-attr] # it is a pipe


def service(settings: Settings, **others: object) -> AbstractContextManager[Server]:
    """Run ``python -m service serve`` on a free port with ``settings``. Entries of ``others`` replace settings."""
    return running(Server, [sys.executable, "-m", "service", "serve"], environment(settings, port=0, **others))


def environment(settings: Settings, **others: object) -> dict[str, str]:
    """Return variables from which a process reads ``settings``. Entries of ``others`` replace settings."""
    told = settings.model_dump(mode="json", exclude_unset=True) | others
    chosen = {f"INFERCEPTION_{name.upper()}": str(value) for name, value in told.items() if value is not None}
    return {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")} | chosen


def plain(folder: Path, precision: str = "fp32", limit: int | None = None) -> AbstractContextManager[Server]:
    """Run the plain server with the model version in ``folder``. ``limit`` bounds its requests at a time."""
    command = [sys.executable, "-m", "bench.plain_server", str(folder), precision, *([str(limit)] if limit else [])]
    return running(Server, command, os.environ)
