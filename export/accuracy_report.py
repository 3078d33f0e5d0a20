"""The report of an evaluation: its figures, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export import accuracy
from export.answers import Row
from export.exported import ExportedVersion
from export.labelled_folder import LabelledPicture

_SHOWN = 10  # lines of a table in the terminal. The JSON has them all, and _PAIRS confused pairs.
_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one precision, all of them shares of the pictures that could be read.

    ``agreement`` is the share of answers like fp32's, None where fp32 was not measured. ``images_per_second`` is the
    speed of ONNX Runtime alone, while other threads decoded. ``matrix`` is the confusion matrix.
    """

    top1: float
    top5: float
    agreement: float | None
    images_per_second: float
    matrix: NDArray[np.int64]
    reliability: accuracy.Reliability


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """What was measured on which pictures. ``broken`` are the pictures that could not be read, with the reason."""

    version: ExportedVersion
    folder: Path
    pictures: int
    broken: dict[str, str]
    precisions: dict[str, Measured]


def build(
    version: ExportedVersion,
    folder: Path,
    precisions: Sequence[str],
    pictures: Sequence[LabelledPicture],
    rows: Sequence[Row],
) -> AccuracyReport:
    """Compute the figures of ``precisions`` from the row of each picture. Raises ValueError if all rows are errors."""
    broken = {row.picture: row.error for row in rows if row.error is not None}
    if len(broken) == len(rows):
        raise ValueError(f"none of {len(rows)} pictures can be read; {rows[0].picture}: {rows[0].error}")
    good = [row for row in rows if row.error is None]
    classes = np.array([picture.label for picture, row in zip(pictures, rows, strict=True) if row.error is None])
    first = {name: np.array([row.answers[name].top[0] for row in good]) for name in precisions}
    measured = {}
    for name in precisions:
        answers = [row.answers[name] for row in good]
        top = np.array([answer.top for answer in answers])
        confidences = np.array([answer.probability for answer in answers])
        measured[name] = Measured(
            top1=accuracy.top_k_accuracy(classes, top, 1),
            top5=accuracy.top_k_accuracy(classes, top, 5),
            agreement=float((first[name] == first["fp32"]).mean()) if "fp32" in first else None,
            images_per_second=len(good) / sum(answer.seconds for answer in answers),
            matrix=accuracy.confusion_matrix(classes, first[name], len(version.labels)),
            reliability=accuracy.reliability(confidences, first[name] == classes),
        )
    return AccuracyReport(version, folder, len(good), broken, measured)


def write(report: AccuracyReport, out: Path) -> None:
    """Write ``report.json`` to the folder ``out``."""
    content = {
        "model": report.version.name,
        "manifest_sha256": report.version.sha256,
        "trained": report.version.trained,
        "measured_on": str(report.folder),
        "pictures": report.pictures,
        "broken": report.broken,
        "onnxruntime": onnxruntime.__version__,
        "precisions": {name: _as_json(measured, report.version.labels) for name, measured in report.precisions.items()},
    }
    (out / "report.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_json(measured: Measured, labels: Sequence[str]) -> dict[str, Any]:
    totals, shares = measured.matrix.sum(1), accuracy.class_accuracies(measured.matrix)
    bins = zip(*(array.tolist() for array in measured.reliability), strict=True)
    return {
        "top1": measured.top1,
        "top5": measured.top5,
        "expected_calibration_error": measured.reliability.calibration_error,
        "agreement_with_fp32": measured.agreement,
        "images_per_second": round(measured.images_per_second, 2),
        "classes": [
            {"index": i, "label": labels[i], "pictures": int(totals[i]), "top1": float(shares[i])}
            for i in np.flatnonzero(totals).tolist()
        ],
        "most_confused": [
            {"true": labels[true], "answer": labels[answer], "pictures": count}
            for true, answer, count in accuracy.most_confused(measured.matrix, _PAIRS)
        ],
        "reliability": [{"pictures": n, "confidence": conf, "accuracy": right} for n, conf, right in bins],
    }


def text(report: AccuracyReport) -> str:
    """Return the report for a terminal. The worst classes and the most confused pairs are the first precision's."""
    labels = report.version.labels
    lines = [f"{report.version.name}, measured on {report.pictures:,} pictures of {report.folder}", ""]
    if not report.version.trained:
        lines += ["The weights are random, so the accuracy means nothing.", ""]
    lines += [f"{'':10}{'top-1':>8}{'top-5':>9}{'calibration error':>20}{'like fp32':>12}{'images/s':>11}"]
    for name, measured in report.precisions.items():
        agreement = "-" if measured.agreement is None else f"{measured.agreement:.2%}"
        error = f"{measured.reliability.calibration_error:.4f}"
        figures = f"{measured.top1:8.2%}{measured.top5:9.2%}{error:>20}{agreement:>12}"
        lines.append(f"{name:10}{figures}{measured.images_per_second:11.1f}")
    name, measured = next(iter(report.precisions.items()))
    totals, shares = measured.matrix.sum(1), accuracy.class_accuracies(measured.matrix)
    worst = np.argsort(shares, kind="stable")[: min(_SHOWN, np.count_nonzero(totals))]
    lines += ["", f"classes of {name}, the worst first", ""]
    lines += [f"{shares[i]:8.1%} of {totals[i]:<6,} {labels[i]}" for i in worst]
    if pairs := accuracy.most_confused(measured.matrix, _SHOWN):
        lines += ["", f"most frequent wrong answers of {name}", ""]
        lines += [f"{count:8,} {labels[true]}  ->  {labels[answer]}" for true, answer, count in pairs]
    if report.broken:
        lines += ["", f"{len(report.broken):,} more pictures can't be read, and are not counted", ""]
        lines += [f"  {picture}: {reason}" for picture, reason in list(report.broken.items())[:_SHOWN]]
    return "\n".join([*lines, ""])
