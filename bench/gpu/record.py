"""A report that is written to disk after each figure."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.report import Report

log = logging.getLogger("bench")


class Record:
    """A report that is rewritten after each figure."""

    def __init__(self, title: str, folder: Path) -> None:
        self.report = Report(title, {})
        self._folder = folder

    def put(self, value: object, *names: object) -> None:
        """Set a figure under ``names``, which lead through nested mappings, and write the report."""
        at = self.report.figures
        for name in names[:-1]:
            at = at.setdefault(str(name), {})
        at[str(names[-1])] = value
        log.info("%s: %s", ", ".join(map(str, names)), value)
        self.report.write(self._folder)

    def attempt(self, run: Callable[[], object], *names: object) -> bool:
        """Call ``run`` and return whether it succeeded. An error becomes a figure, and measuring goes on."""
        try:
            run()
        except Exception as error:  # onnxruntime, torch and CUDA raise errors of their own
            self.put(f"{type(error).__name__}: {' '.join(str(error).split())}"[:600], *names, "error")
            return False
        return True


def rate(images: int, seconds: Sequence[float]) -> dict[str, float]:
    """Return images/s of several rounds (median, least, most), and the median milliseconds."""
    middle = statistics.median(seconds)
    return {
        "images_per_s": images / middle,
        "least": images / max(seconds),
        "most": images / min(seconds),
        "ms": middle * 1e3,
    }
