"""The process around the connections: the files that it may open."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.server import running
from tests.server import Server
from tests.service.http.raw import assert_live

FILES = 256


@contextmanager
def with_files(model_repository: Path, soft: int, hard: int) -> Iterator[Server]:
    """Run a server that may open ``soft`` files, and may raise that to ``hard``."""
    shell = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$0" "$@"'
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={model_repository}"]
    with running(Server, ["/bin/bash", "-c", shell, *command], os.environ) as server:
        yield server


def test_more_clients_than_files_leave_health_checks_answered(model_repository: Path) -> None:
    with with_files(model_repository, FILES, FILES) as server, ExitStack() as stack:
        for _ in range(FILES + 50):
            stack.enter_context(server.connect())
        for _ in range(10):
            assert_live(server)
        (line,) = [line for line in server.output if "max_connections is" in line]
        assert f"max_connections is 96, not 1024: this process may open {FILES} files" in line


def test_a_process_opens_as_many_files_as_it_may(model_repository: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with with_files(model_repository, FILES, hard) as server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
