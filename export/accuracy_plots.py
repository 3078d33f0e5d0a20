"""The pictures of an accuracy report: a confusion matrix for each precision, and one reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from export.accuracy import Reliability
from export.accuracy_report import AccuracyReport

CLASSES = 30  # that fit into a matrix with readable labels
_NUMBERED = 15  # classes up to which the cells have room for numbers
_BLUE, _ORANGE = "#0072b2", "#e69f00"  # of Okabe and Ito's palette, which colour-blind people tell apart


def write(report: AccuracyReport, out: Path) -> None:
    """Write ``confusion-PRECISION.png`` for each precision, and ``reliability.png``, to the folder ``out``."""
    for name, measured in report.precisions.items():
        title = f"{report.version.name} {name}, {report.pictures:,} pictures"
        confusion(measured.matrix, report.version.labels, title).savefig(out / f"confusion-{name}.png", dpi=100)
    diagrams = {name: measured.reliability for name, measured in report.precisions.items()}
    reliability(diagrams, f"{report.version.name}, {report.pictures:,} pictures").savefig(
        out / "reliability.png", dpi=100
    )


def shown_classes(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes of a confusion matrix to draw, in order: those that occur, or the CLASSES with most errors."""
    occurring = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    return np.sort(occurring[np.argsort(-errors[occurring], kind="stable")[:CLASSES]])


def confusion(matrix: NDArray[np.int64], labels: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix: the colour is the share of a true class's pictures, the number counts pictures."""
    classes = shown_classes(matrix)
    counts = matrix[np.ix_(classes, classes)]
    shares = counts / np.maximum(matrix[classes].sum(1, keepdims=True), 1)
    names = [_short(labels[i]) for i in classes]
    side = 3.5 + 0.25 * max(len(names), 8)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class's pictures", format=PercentFormatter(1), shrink=0.8)
    if len(names) <= _NUMBERED:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set_xlabel("answer")
    axis.set_ylabel("true class")
    occurring = np.count_nonzero(matrix.sum(0) + matrix.sum(1))
    if len(names) < occurring:
        title += f"\nthe {len(names)} classes with most errors, of {occurring:,}"
    axis.set_title(title, fontsize="medium")
    return figure


def reliability(diagrams: dict[str, Reliability], title: str) -> Figure:
    """Draw accuracy over confidence for each precision, and below how many pictures have that confidence."""
    size = (0.8 + 3.6 * len(diagrams), 5.2)
    figure = Figure(size, layout=ConstrainedLayoutEngine(wspace=0.06))  # without it, the ticks of neighbours touch
    figure.suptitle(title)
    columns = figure.subplots(2, len(diagrams), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]).T
    for (name, measured), (upper, lower) in zip(diagrams.items(), columns, strict=True):
        upper.set_title(f"{name}, calibration error {measured.calibration_error:.3f}", fontsize="medium")
        _draw_reliability(upper, measured)
        lower.bar(**_bars(measured.images), color=_BLUE)
        lower.set_xlabel("confidence")
        lower.xaxis.set_major_formatter(PercentFormatter(1))
    columns[0][0].set_ylabel("right answers")
    columns[0][0].yaxis.set_major_formatter(PercentFormatter(1))
    columns[0][0].legend(loc="upper left", fontsize="small")
    columns[0][1].set_ylabel("pictures")
    return figure


def _draw_reliability(axis: Axes, measured: Reliability) -> None:
    filled = measured.images > 0
    axis.bar(**_bars(measured.accuracy), color=_BLUE, label="right answers")
    axis.plot(
        measured.confidence[filled], measured.confidence[filled], "o", color=_ORANGE, label="mean confidence of a bin"
    )
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="perfect calibration")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)


def _bars(heights: NDArray[Any]) -> dict[str, Any]:
    width = 1 / len(heights)
    return {"x": (np.arange(len(heights)) + 0.5) * width, "height": heights, "width": 0.92 * width}


def _short(label: str) -> str:
    first = label.split(",")[0]
    return first if len(first) <= 24 else f"{first[:23].rstrip()}…"
