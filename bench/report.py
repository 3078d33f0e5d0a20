"""The result of a measurement: figures, bars that are met or not, and series to plot, as text, JSON and a picture."""

from __future__ import annotations

import json
import math
import platform
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import plots
from bench.plots import BarChart, Curves
from service.settings import available_cpus

WIDTH = 118
_CELL = 60  # characters at most in a cell of a table; the JSON keeps whole error messages
_NO_BREAK = "\N{NO-BREAK SPACE}"


def machine() -> dict[str, object]:
    """Return the CPU, the number of usable CPUs, and the system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cpus": available_cpus(), "system": platform.platform()}


@dataclass(frozen=True)
class Bar:
    """A figure and its limit: a maximum, or a minimum if ``at_least``. NaN meets no limit."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps the limit. A figure equal to the limit keeps it."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Report:
    """Figures under a title. The files are named after the title. Mappings in ``figures`` may hold mappings."""

    title: str
    figures: dict[str, Any]
    bars: Sequence[Bar] = ()
    plots: Sequence[BarChart | Curves] = ()
    machine: dict[str, object] = field(default_factory=machine)

    @property
    def passed(self) -> bool:
        """Whether every bar is met."""
        return all(bar.met for bar in self.bars)

    def text(self) -> str:
        """Return the bars, one per line, and then the figures."""
        rows = [
            f"  {'PASS' if bar.met else 'FAIL'}  {bar.name:<58} {bar.value:>10.3f}  {'>=' if bar.at_least else '<='} "
            f"{bar.limit:.3f}"
            for bar in self.bars
        ]
        return "\n".join([self.title, *rows, *_lines(self.figures, "  ")])

    def write(self, folder: Path) -> None:
        """Write ``<title>.json``. Also write ``<title>.png`` if there are plots and matplotlib is installed."""
        folder.mkdir(parents=True, exist_ok=True)
        bars = [asdict(bar) | {"met": bar.met} for bar in self.bars]
        content = {"title": self.title, "passed": self.passed, "machine": self.machine, "bars": bars}
        (folder / f"{self.title}.json").write_text(
            json.dumps(_plain(content | {"figures": self.figures}), indent=2) + "\n"
        )
        if self.plots and plots.AVAILABLE:
            plots.save(self.plots, self.title + ("" if self.passed else ": FAILED"), folder / f"{self.title}.png")


def _lines(figures: Mapping[Any, Any], indent: str) -> list[str]:
    """Return single figures in wrapped lines, mappings of flat mappings as tables, and other mappings indented."""
    single = [f"{name} {_text(value)}" for name, value in figures.items() if not isinstance(value, Mapping)]
    unbroken = ", ".join(figure.replace(" ", _NO_BREAK) for figure in single)
    wrapped = textwrap.wrap(unbroken, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
    lines = [line.replace(_NO_BREAK, " ") for line in wrapped]
    for name, inner in figures.items():
        if not isinstance(inner, Mapping):
            continue
        rows = list(inner.values())
        if rows and all(isinstance(row, Mapping) and not _nested(row) for row in rows):
            lines += _table(str(name), inner, indent)
        else:
            lines += [f"{indent}{name}", *_lines(inner, indent + "  ")]
    return lines


def _nested(figures: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in figures.values())


def _table(name: str, rows: Mapping[Any, Mapping[Any, Any]], indent: str) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    first = max(len(indent + name), *(len(f"{indent}  {row}") for row in rows))
    cells = [[_text(row[column])[:_CELL] if column in row else "" for column in columns] for row in rows.values()]
    widths = [
        2 + max(map(len, [str(column), *column_cells])) for column, *column_cells in zip(columns, *cells, strict=True)
    ]
    heading = (indent + name).ljust(first) + "".join(f"{c!s:>{w}}" for c, w in zip(columns, widths, strict=True))
    return [heading] + [
        f"{indent}  {row}".ljust(first) + "".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True))
        for row, line in zip(rows, cells, strict=True)
    ]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_text, value))
    return "unknown" if value is None else str(value)


def _plain(value: object) -> object:
    """Return ``value`` in a form that JSON can hold: null for NaN, and strings as names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
