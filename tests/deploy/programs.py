"""The real programs that read the configuration: installed on this machine, or unpacked by the Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

UNPACKED = Path(".venv/debian").absolute()


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=f"{UNPACKED}/usr/bin:{UNPACKED}/usr/sbin")
    assert found, f"there is no {name}: make .venv/debian"
    return found


def libraries() -> dict[str, str]:
    """The environment in which an unpacked program finds its libraries."""
    return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, UNPACKED.glob("usr/lib/*-linux-gnu")))}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
