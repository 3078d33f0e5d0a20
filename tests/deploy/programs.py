"""The real programs that read the configuration: installed on this machine, or unpacked by the Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

UNPACKED = Path(".venv/debian").absolute()


def program(name: str) -> str:
    folders = ("lib/chromium", "bin", "sbin")  # in bin, Chromium is a script that knows no other place
    found = shutil.which(name) or shutil.which(name, path=":".join(f"{UNPACKED}/usr/{folder}" for folder in folders))
    assert found, f"there is no {name}: make .venv/debian/usr/bin/chromium"
    return found


def libraries() -> dict[str, str]:
    """The environment in which an unpacked program finds its libraries."""
    folders = [*UNPACKED.glob("usr/lib/*-linux-gnu"), *UNPACKED.glob("usr/lib/*-linux-gnu/pulseaudio")]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
