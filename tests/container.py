"""The image under test, as the environment names it: INFERCEPTION_TEST_IMAGE, run by INFERCEPTION_TEST_ENGINE."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

IMAGE = os.environ.get("INFERCEPTION_TEST_IMAGE", "")
ENGINE = shlex.split(os.environ.get("INFERCEPTION_TEST_ENGINE", "docker"))
LOCKED_DOWN = ["--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def serve_command(model_repository: Path, environment: dict[str, str]) -> list[str]:
    """Return the command that serves the repository, a volume, on a free port of this machine until SIGTERM.

    The container is called inferception-PORT.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # The port is the same inside: so its announcement is right, and an engine on the host's network works as well.
    settings = {"INFERCEPTION_PORT": str(port)} | environment
    return [
        *(*ENGINE, "run", *LOCKED_DOWN, f"--name=inferception-{port}", f"--publish=127.0.0.1:{port}:{port}"),
        f"--volume={model_repository.resolve()}:/models:ro",
        *(f"--env={name}={value}" for name, value in settings.items()),
        IMAGE,
    ]


def engine(*arguments: str) -> str:
    """Run the engine and return what it prints; CalledProcessError if it fails."""
    done = subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout
