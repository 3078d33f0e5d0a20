"""Write manifest.json, labels.txt and the golden samples: all that the service knows of a model besides its graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import torch

from export import onnx_file
from export.trace import OPSET
from export.verify import Agreement, GoldenSample
from models.weights import LoadedModel


def write_manifest(
    folder: Path,
    loaded: LoadedModel,
    *,
    name: str,
    version: int,
    agreements: dict[str, Agreement],
    golden: Sequence[GoldenSample],
) -> None:
    """Write the manifest of the version in ``folder``, its labels and its golden samples.

    ``agreements`` holds each precision whose files are in ``folder``. The same arguments give the same bytes. Raises
    ValueError for a label that is empty or spans lines.
    """
    how = loaded.preprocessing
    normalisation = {"mean": how.mean, "std": how.std, "channel_order": how.channel_order}  # inside the graph
    manifest = {
        "schema_version": 1,
        "name": name,
        "version": version,
        "architecture": {"name": loaded.spec.name, "options": loaded.options, "normalisation": normalisation},
        "trained": loaded.trained,
        "weights": {"source": loaded.source, "sha256": loaded.sha256},
        "input": {"height": how.input_size, "width": how.input_size, "layout": "NHWC", "dtype": "uint8"},
        "preprocessing": {
            "crop_pct": how.crop_pct,
            "crop_mode": how.crop_mode,
            "interpolation": how.interpolation,
        },
        "labels": _write_labels(folder, loaded.labels),
        "variants": [_variant(folder, precision, agreement) for precision, agreement in agreements.items()],
        "golden": [_write_golden(folder, number, sample, loaded.labels) for number, sample in enumerate(golden)],
        "exporter": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
            "opset": OPSET,
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _file(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _write_labels(folder: Path, labels: Sequence[str]) -> dict[str, Any]:
    if broken := [label for label in labels if label.splitlines() != [label]]:
        raise ValueError(f"a label must be one line that is not empty, not {broken[0]!r}")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return _file(folder, "labels.txt") | {"count": len(labels)}


def _variant(folder: Path, precision: str, agreement: Agreement) -> dict[str, Any]:
    paths = onnx_file.paths(folder, precision)
    return {
        "precision": precision,
        **_file(folder, paths.graph.name),
        "external_data": _file(folder, paths.weights.name),
        "agreement": {
            "reference": agreement.reference,
            "images": agreement.images,
            "top1": round(agreement.top1, 4),
            "mean_abs_probability": float(f"{agreement.mean_abs_probability:.1e}"),
            "max_abs_probability": float(f"{agreement.max_abs_probability:.1e}"),
        },
    }


def _write_golden(folder: Path, number: int, sample: GoldenSample, labels: Sequence[str]) -> dict[str, Any]:
    name = f"golden/{number}.jpg"
    (folder / "golden").mkdir(exist_ok=True)
    (folder / name).write_bytes(sample.jpeg)
    top_k = [{"index": i, "label": labels[i], "probability": round(p, 6)} for i, p in sample.top_k]
    return _file(folder, name) | {"top_k": top_k}
