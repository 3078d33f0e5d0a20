"""Trained Inception-v3 from end to end: colours in 0..1, concatenations, hidden layers."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from export.__main__ import main


def test_nsfwjs_weights_are_exported(tmp_path: Path) -> None:
    assert main(["inception_v3", "--weights", "nsfwjs", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "inception_v3" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["weights"]["source"] == "npm:nsfwjs@4.4.0"
    assert manifest["architecture"]["options"]["hidden_units"] == [256, 128]
    assert manifest["preprocessing"] == {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    assert (folder / "labels.txt").read_text().splitlines() == ["Drawing", "Hentai", "Neutral", "Porn", "Sexy"]
    assert manifest["variants"][0]["agreement"]["top1"] == 1.0
    pools = [node for node in onnx.load(folder / "fp32.onnx").graph.node if node.op_type == "AveragePool"]
    assert len(pools) == 9
    assert all(attribute.i == 0 for pool in pools for attribute in pool.attribute if "include_pad" in attribute.name)
