"""Remembers which way to run a model was the fastest on this machine, so that only its first start measures it.

Each choice is a JSON file, whose name stands for all that the choice depends on. So another model, CPU, library or
number of threads is another choice. Where a file can't be read or written, each start measures.
"""

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
_NOISE = 0.1  # on a machine with neighbours, two measurements of the same thing differ by so much


class Choice(BaseModel):
    """The seconds that one image takes, by the name of each way to run the model, and the day of the measurement.

    The first of equally fast ways is the best.
    """

    model_config = ConfigDict(frozen=True)

    seconds: dict[str, float] = Field(min_length=1)
    measured: date

    @property
    def best(self) -> str:
        """The name of the fastest way, or of an earlier way that no measurement can tell from the fastest."""
        least = min(self.seconds.values())
        return next(name for name, seconds in self.seconds.items() if seconds <= least * (1 + _NOISE))

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in self.seconds.items())
        return (
            f"{self.best} is fastest, give or take {_NOISE:.0%} (an image takes {times}, measured on {self.measured})"
        )


def recall(folder: Path | None, depends_on: Mapping[str, object]) -> Choice | None:
    """Return what ``remember`` put into the folder under these circumstances on this CPU, or None."""
    if folder is None:
        return None
    try:
        return Choice.model_validate_json(_file(folder, depends_on).read_bytes())
    except (OSError, ValidationError):
        return None


def remember(folder: Path | None, depends_on: Mapping[str, object], choice: Choice) -> None:
    """Keep a choice for the next start, if there is a folder."""
    if folder is None:
        return
    file = _file(folder, depends_on)
    written = file.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written.write_text(choice.model_dump_json())
        written.replace(file)  # at once: another process must not read half of it
    except OSError as error:
        log.info("can't keep what was measured, so the next start measures again: %s", error)


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
