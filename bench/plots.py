"""Draw a report's series with matplotlib, which the service's container image lacks."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AVAILABLE = importlib.util.find_spec("matplotlib") is not None


@dataclass(frozen=True)
class BarChart:
    """One bar for each name, from zero."""

    title: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """Points (seconds, value) by name. Dots have a logarithmic scale. ``level`` is drawn as a horizontal line."""

    title: str
    points: Mapping[str, Sequence[tuple[float, float]]]
    style: Literal["dots", "line", "steps"] = "line"
    colours: Mapping[str, str] = field(default_factory=dict)
    level: float | None = None


def save(charts: Sequence[BarChart | Curves], title: str, path: Path) -> None:
    """Draw the charts one below the other, and write the picture as PNG."""
    from matplotlib.figure import Figure

    heights = [1 + 0.3 * len(chart.values) if isinstance(chart, BarChart) else 3.0 for chart in charts]
    figure = Figure(figsize=(10, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(charts), squeeze=False, height_ratios=heights)[:, 0]
    for chart, axis in zip(charts, axes, strict=True):
        axis.set_title(chart.title, fontsize="medium", loc="left")
        if isinstance(chart, BarChart):
            _draw_bars(axis, chart)
        else:
            _draw_curves(axis, chart)
    curves = [axis for chart, axis in zip(charts, axes, strict=True) if isinstance(chart, Curves)]
    for axis in curves[1:]:
        axis.sharex(curves[0])
    figure.savefig(path, dpi=100)


def _draw_bars(axis: Axes, chart: BarChart) -> None:
    bars = axis.barh(range(len(chart.values)), list(chart.values.values()), tick_label=list(chart.values))
    axis.bar_label(bars, fmt="%.4g", padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.1)


def _draw_curves(axis: Axes, chart: Curves) -> None:
    styles: dict[str, dict[str, Any]] = {
        "dots": {"linestyle": "none", "marker": ".", "markersize": 4},
        "line": {},
        "steps": {"drawstyle": "steps-post"},
    }
    for name, points in chart.points.items():
        if points:
            axis.plot(*zip(*points, strict=True), label=name, color=chart.colours.get(name), **styles[chart.style])
    if chart.level is not None:
        axis.axhline(chart.level, color="black", linewidth=0.5)
    if chart.style == "dots":
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.1 * axis.dataLim.ymax)
    axis.set_xlabel("seconds")
    if len(chart.points) > 1:
        axis.legend(loc="upper right", fontsize="small")
