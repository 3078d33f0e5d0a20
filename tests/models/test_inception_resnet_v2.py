from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import create_model
from models.weights import load_model
from tests.models.measures import macs, output_shapes

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def keys() -> Iterator[str]:
    """Yield the keys of timm's inception_resnet_v2, written from a description of its files."""
    block35 = "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 conv2d"
    block = "branch0 branch1.0 branch1.1 branch1.2 conv2d"
    blocks = {"mixed_5b": "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 branch3.1"}
    blocks |= {f"repeat.{i}": block35 for i in range(10)}
    blocks |= {"mixed_6a": "branch0 branch1.0 branch1.1 branch1.2"}
    blocks |= {f"repeat_1.{i}": block for i in range(20)}
    blocks |= {"mixed_7a": "branch0.0 branch0.1 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2"}
    blocks |= {f"repeat_2.{i}": block for i in range(9)} | {"block8": block}
    units = [f"conv2d_{name}" for name in ("1a", "2a", "2b", "3b", "4a")]
    units += [f"{block}.{name}" for block, names in blocks.items() for name in names.split()]
    for unit in [*units, "conv2d_7b"]:
        if unit.endswith("conv2d"):  # a projection
            yield from (f"{unit}.weight", f"{unit}.bias")
        else:
            yield f"{unit}.conv.weight"
            yield from (f"{unit}.bn.{key}" for key in BATCH_NORM)
    yield from ("classif.weight", "classif.bias")


def test_state_dict_keys_are_timm_s_and_the_parameter_count_is_published() -> None:
    with torch.device("meta"):
        model = create_model("inception_resnet_v2")
    assert list(model.state_dict()) == list(keys())
    assert sum(parameter.numel() for parameter in model.parameters()) == 55_843_464


def test_stage_shapes_and_cost() -> None:
    with torch.device("meta"):
        model = create_model("inception_resnet_v2").eval()
        assert macs(model, 299) == pytest.approx(13.156e9, rel=0.01)
        stages = [name for name, _ in model.named_children()][:15]
        shapes = output_shapes(model, stages, torch.zeros(1, 3, 299, 299))
    stem = [(32, 149), (32, 147), (64, 147), (64, 73), (80, 73), (192, 71), (192, 35)]
    blocks = [(320, 35), (320, 35), (1088, 17), (1088, 17), (2080, 8), (2080, 8), (2080, 8), (1536, 8)]
    assert shapes == stem + blocks


def test_cadene_s_name_for_the_head(tmp_path: Path) -> None:
    state = create_model("inception_resnet_v2", 5).state_dict()
    torch.save({key.replace("classif.", "last_linear."): value for key, value in state.items()}, tmp_path / "a.pth")
    loaded = load_model("inception_resnet_v2", str(tmp_path / "a.pth"), labels=list("abcde"))
    assert torch.equal(loaded.model.state_dict()["classif.weight"], state["classif.weight"])
