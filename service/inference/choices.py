"""Remembers which way to run a model was the fastest on this machine, so that only its first start measures it.

One JSON file for each choice, named by all that it depends on: another model, CPU, library or thread count is another
choice. A file that can't be read is measured anew, and one that can't be written is not missed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

log = logging.getLogger("inferception")

_CPUINFO = Path("/proc/cpuinfo")
_NOISE = 0.1  # two measurements of the same thing differ by so much on a machine with neighbours


class Choice(BaseModel):
    """Seconds that one image takes, by the name of each way to run it, and the day they were measured on.

    Of ways that are equally fast the first is the best.
    """

    model_config = ConfigDict(frozen=True)

    seconds: dict[str, float] = Field(min_length=1)
    measured: date

    @property
    def best(self) -> str:
        """The name of the fastest way, or of an earlier one that no measurement can tell from it."""
        least = min(self.seconds.values())
        return next(name for name, seconds in self.seconds.items() if seconds <= least * (1 + _NOISE))

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in self.seconds.items())
        return (
            f"{self.best} is fastest, give or take {_NOISE:.0%} (an image takes {times}, measured on {self.measured})"
        )


class Choices:
    """The choices kept in a folder; without one, nothing is remembered."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def recall(self, depends_on: Mapping[str, object]) -> Choice | None:
        """Return what was chosen under these circumstances on this CPU, or None."""
        if self._folder is None:
            return None
        try:
            return Choice.model_validate_json(self._file(self._folder, depends_on).read_bytes())
        except (OSError, ValidationError):
            return None

    def remember(self, depends_on: Mapping[str, object], choice: Choice) -> None:
        """Keep a choice for the next start."""
        if self._folder is None:
            return
        file = self._file(self._folder, depends_on)
        written = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(choice.model_dump_json())
            written.replace(file)  # at once, or another process might read half of it
        except OSError as error:
            log.info("can't keep what was measured, so the next start measures again: %s", error)

    @staticmethod
    def _file(folder: Path, depends_on: Mapping[str, object]) -> Path:
        circumstances = json.dumps({**depends_on, "cpu": _cpu()}, sort_keys=True)
        return folder / f"{hashlib.sha256(circumstances.encode()).hexdigest()[:16]}.json"


def _cpu() -> list[str]:
    """Return what tells one kind of CPU from another."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
