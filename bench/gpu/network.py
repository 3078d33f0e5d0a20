"""The fused PyTorch network with the weights of an exported version."""

from __future__ import annotations

import json

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from bench.repository import Model
from export.fuse import fuse
from models import create_model
from models.spec import Preprocessing


def load_network(model: Model) -> nn.Module:
    """Return the network in float32 on the CPU, with the weights of the version's most precise variant."""
    manifest = model.manifest
    # manifest.json has no mean and std: the graph's weights contain them, and replace the fused weights below.
    preprocessing = Preprocessing(**json.loads((model.folder / "manifest.json").read_text())["preprocessing"])
    network = fuse(
        create_model(manifest.architecture["name"], **manifest.architecture["options"]).eval(), preprocessing
    )
    files = {variant.precision: variant.file for variant in manifest.variants}
    graph = onnx.load(model.folder / (files.get("fp32") or files["fp16"])).graph
    state = {
        tensor.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in graph.initializer
        if tensor.name.startswith("network.")
    }
    network.load_state_dict(state, strict=True)
    return network.eval()
