from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import create_model
from models.weights import load_model, untrained_model
from tests.models.measures import macs, output_shapes

PhotoBatch = Callable[[int], Tensor]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_has_torchvision_s_parameter_counts() -> None:
    with torch.device("meta"):
        assert parameter_count(create_model("inception_v3")) == 23_834_568
        assert parameter_count(create_model("inception_v3", aux=True)) == 27_161_264


def keys() -> Iterator[str]:
    """Yield the keys of timm's inception_v3, written from a description of its files."""
    a = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
    b = "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4"
    c = "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b"
    mixed = dict.fromkeys(("5b", "5c", "5d"), a)
    mixed |= {"6a": "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"}
    mixed |= dict.fromkeys(("6b", "6c", "6d", "6e"), f"{b} branch7x7dbl_5 branch_pool")
    mixed |= {"7a": "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"}
    mixed |= dict.fromkeys(("7b", "7c"), f"{c} branch_pool")
    units = [f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    units += [f"Mixed_{block}.{name}" for block, names in mixed.items() for name in names.split()]
    for unit in units:
        yield f"{unit}.conv.weight"
        yield from (f"{unit}.bn.{key}" for key in BATCH_NORM)
    yield from ("fc.weight", "fc.bias")


def test_state_dict_keys_are_timm_s() -> None:
    with torch.device("meta"):
        assert list(create_model("inception_v3").state_dict()) == list(keys())


def test_stage_shapes_and_cost() -> None:
    with torch.device("meta"):
        model = create_model("inception_v3").eval()
        assert macs(model, 299) == pytest.approx(5.713e9, rel=0.01)
        stages = [name for name, _ in model.named_children()][:18]
        shapes = output_shapes(model, stages, torch.zeros(1, 3, 299, 299))
    stem = [(32, 149), (32, 147), (64, 147), (64, 73), (80, 73), (192, 71), (192, 35)]
    mixed = [(256, 35), (288, 35), (288, 35), *[(768, 17)] * 5, (1280, 8), (2048, 8), (2048, 8)]
    assert shapes == stem + mixed


def test_the_auxiliary_head_answers_in_training_alone(photo_batch: PhotoBatch) -> None:
    model = create_model("inception_v3", 5, aux=True)
    with torch.no_grad():
        logits, auxiliary = model(photo_batch(299)[:2])
        assert logits.shape == auxiliary.shape == (2, 5)
        assert model.eval()(photo_batch(107)[:2]).shape == (2, 5)


def test_a_file_with_an_auxiliary_head_loads_without_it(tmp_path: Path) -> None:
    torch.save(create_model("inception_v3", 5, aux=True).state_dict(), tmp_path / "a.pth")
    loaded = load_model("inception_v3", str(tmp_path / "a.pth"), labels=list("abcde"))
    assert list(loaded.model.state_dict()) == list(keys())
    assert loaded.options == {"num_classes": 5, "count_include_pad": True, "aux": False, "hidden_units": []}


def test_the_border_of_the_average_pools_changes_the_logits(photo_batch: PhotoBatch) -> None:
    counted = untrained_model("inception_v3", photo_batch(107)[:2]).model
    excluded = create_model("inception_v3", count_include_pad=False).eval()
    excluded.load_state_dict(counted.state_dict())
    with torch.no_grad():
        assert (counted(photo_batch(107)[:2]) - excluded(photo_batch(107)[:2])).abs().max() > 1e-2
