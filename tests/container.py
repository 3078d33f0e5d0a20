"""The container image under test, INFERCEPTION_TEST_IMAGE, and the program that runs it, INFERCEPTION_TEST_ENGINE."""

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
    """Return the command of a container that serves the repository on a free port of this machine until SIGTERM.

    The repository is mounted as a volume. The container's name is inferception-PORT.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # The port inside the container is the same. So the server announces the right port, and host networking works too.
    settings = {"INFERCEPTION_PORT": str(port)} | environment
    return [
        *(*ENGINE, "run", *LOCKED_DOWN, f"--name=inferception-{port}", f"--publish=127.0.0.1:{port}:{port}"),
        f"--volume={model_repository.resolve()}:/models:ro",
        *(f"--env={name}={value}" for name, value in settings.items()),
        IMAGE,
    ]


def engine(*arguments: str) -> str:
    """Run docker or podman and return its output. Raises CalledProcessError if the command fails."""
    done = subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout
