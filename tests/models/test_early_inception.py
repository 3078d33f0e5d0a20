"""Inception-v1 is torchvision's, Inception-v2 is Cadene's and pytorchcv's, and both load published files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pytorchcv.models.bninception import bninception
from pytorchcv.models.common import SEBlock
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models import create_model, find_spec
from models.spec import State
from models.weights import LoadedModel, load_model
from tests.models.test_architectures import output_shapes, parameter_count
from tests.models.test_parity import assert_same_live_logits, copy_in_float64, float64_logits, with_weights_of

TORCHVISION = Path(sys.prefix, "reference", "torchvision")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def googlenet() -> Iterator[ModuleType]:
    """torchvision's own module, in stand-ins for its packages: the real ones would load compiled operators."""
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in {"torchvision": TORCHVISION, "torchvision.models": TORCHVISION / "models"}.items():
            package = ModuleType(name)
            package.__path__ = [str(folder)]
            patch.setitem(sys.modules, name, package)
        yield import_module("torchvision.models.googlenet")


@pytest.mark.parametrize(
    ("name", "options", "parameters", "giga_macs"),
    [
        ("inception_v1", {}, 6_624_904, 1.498),
        ("inception_v1", {"true_5x5": True}, 7_005_832, 1.583),
        ("inception_v1", {"aux": True}, 13_004_888, 1.498),
        ("inception_v2", {}, 11_295_240, 2.033),
        ("inception_v2", {"conv_bias": False}, 11_285_224, 2.033),
        ("se_inception_v2", {}, 11_931_622, 2.033),
    ],
)
def test_size_and_cost(name: str, options: dict[str, Any], parameters: int, giga_macs: float) -> None:
    """A multiplication with its addition is one MAC, and two of the counter's operations."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = create_model(name, **options).eval()
        model(torch.zeros(1, 3, 224, 224))
    assert parameter_count(model) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, rel=0.01)


def test_stage_shapes(live_inception_v1: LoadedModel, live_inception_v2: LoadedModel, small_images: Tensor) -> None:
    def shapes(loaded: LoadedModel) -> list[tuple[int, int]]:
        stages = [name for name, _ in loaded.model.named_children() if name.startswith(("conv", "inception"))]
        return output_shapes(loaded.model, stages, small_images[:1])

    stem = [(64, 112), (64, 56), (192, 56)]
    assert shapes(live_inception_v1) == [
        *stem, (256, 28), (480, 28), *[(512, 14)] * 3, (528, 14), (832, 14), (832, 7), (1024, 7)
    ]  # fmt: skip
    assert shapes(live_inception_v2) == [
        *stem, (256, 28), (320, 28), *[(576, 14)] * 3, *[(608, 14)] * 2, (1056, 7), *[(1024, 7)] * 2
    ]  # fmt: skip


def saved(state: State, path: Path) -> str:
    save_file(state, path)
    return str(path)


@pytest.mark.parametrize("true_5x5", [False, True])
def test_inception_v1_equals_torchvision_through_its_file(
    googlenet: ModuleType, small_images: Tensor, tmp_path: Path, true_5x5: bool
) -> None:
    """torchvision's file has auxiliary heads. Its network gets the paper's kernels by hand."""
    theirs = googlenet.GoogLeNet(init_weights=False, dropout=0.0, dropout_aux=0.0)
    for module in [module for module in theirs.modules() if isinstance(module, googlenet.Inception) and true_5x5]:
        conv = module.branch3[1].conv
        module.branch3[1].conv = nn.Conv2d(conv.in_channels, conv.out_channels, 5, padding=2, bias=False)
    make_live(theirs, small_images)

    loaded = load_model("inception_v1", saved(theirs.state_dict(), tmp_path / "googlenet.safetensors"))

    assert loaded.options == {"num_classes": 1000, "true_5x5": true_5x5, "aux": False}
    ours = float64_logits(copy_in_float64(loaded), small_images)
    assert_same_live_logits(ours, float64_logits(theirs.double().eval(), small_images))


def make_live(model: nn.Module, images: Tensor) -> None:
    """Give every BatchNorm a random scale and shift, and the statistics of the batch."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.2, generator=random)
    with torch.no_grad():
        model.train()(images)


def test_auxiliary_heads_equal_torchvision(googlenet: ModuleType, small_images: Tensor) -> None:
    theirs = googlenet.GoogLeNet(init_weights=False, dropout=0.0, dropout_aux=0.0).double().train()
    ours = create_model("inception_v1", aux=True).double().train()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        logits, aux1, aux2 = ours(small_images[:, :, ::2, ::2].double())
        expected = theirs(small_images[:, :, ::2, ::2].double())
    assert_same_live_logits(logits, expected.logits)
    assert_same_live_logits(aux1, expected.aux_logits1)
    assert_same_live_logits(aux2, expected.aux_logits2)
    assert isinstance(ours.eval()(small_images[:1].double()), Tensor)


def cadene_layers() -> Iterator[str]:
    """Yield the convolutions of pretrainedmodels 0.7.4's bninception.py in their order."""
    yield from ("conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3")
    middle = ("3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2")
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        for layer in middle if block in ("3c", "4e") else ("1x1", *middle, "pool_proj"):
            yield f"inception_{block}_{layer}"


def cadene_state(model: nn.Module) -> State:
    """Return a network's tensors as Cadene's file names them. The file is of a time without batch counters."""
    keys = [
        f"{layer}{key}"
        for layer in cadene_layers()
        for key in (".weight", ".bias", "_bn.weight", "_bn.bias", "_bn.running_mean", "_bn.running_var")
    ]
    tensors = [tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")]
    return dict(zip([*keys, "last_linear.weight", "last_linear.bias"], tensors, strict=True))


def test_inception_v2_equals_pytorchcv_through_cadene_s_file(small_images: Tensor, tmp_path: Path) -> None:
    theirs = bninception()
    make_live(theirs, small_images)

    loaded = load_model("inception_v2", saved(cadene_state(theirs), tmp_path / "bn_inception.safetensors"))

    assert loaded.preprocessing.channel_order == "bgr"
    ours = float64_logits(copy_in_float64(loaded), small_images)
    assert_same_live_logits(ours, float64_logits(theirs.double().eval(), small_images))


def test_a_file_under_our_own_keys_loads_too(live_se_inception_v2: LoadedModel, tmp_path: Path) -> None:
    state = live_se_inception_v2.model.state_dict()
    for name in ("inception_v2", "se_inception_v2"):
        assert list(find_spec(name).adapt(state)[0]) == list(state)


def test_se_inception_v2_equals_pytorchcv_s_blocks(live_se_inception_v2: LoadedModel, small_images: Tensor) -> None:
    reference = bninception(bias=False)
    reference.features.init_block.conv2 = type(reference.features.init_block.conv2)(64, 192, 64, bias=False)
    widths = iter((256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024))
    for stage in (reference.features.stage1, reference.features.stage2, reference.features.stage3):
        for name, block in list(stage.named_children()):
            setattr(stage, name, nn.Sequential(block, SEBlock(next(widths))))
    ours = float64_logits(copy_in_float64(live_se_inception_v2), small_images)
    assert_same_live_logits(ours, float64_logits(with_weights_of(live_se_inception_v2, reference), small_images))
