"""GoogLeNet is torchvision's, counted by the paper and by torchvision."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from models import create_model, find_spec
from models.weights import LoadedModel, untrained_model
from tests.models.conftest import PhotoBatch
from tests.models.measures import (
    assert_same_live_logits,
    float64_logits,
    in_float64,
    macs,
    output_shapes,
    parameter_count,
    with_weights_of,
)

# The wheel without its compiled operators, which need another torch: `make test` puts it there.
TORCHVISION = Path(sys.prefix, "reference", "torchvision")


@pytest.fixture
def googlenet(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """torchvision's own file. Stand-ins for its packages keep their ``__init__`` from loading compiled operators."""
    for name, folder in {"torchvision": TORCHVISION, "torchvision.models": TORCHVISION / "models"}.items():
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        monkeypatch.setitem(sys.modules, name, package)
    return importlib.import_module("torchvision.models.googlenet")


@pytest.fixture(scope="module")
def images(photo_batch: PhotoBatch) -> Tensor:
    return photo_batch(224)[:3]


@pytest.fixture(scope="module")
def live(images: Tensor) -> LoadedModel:
    return untrained_model("inception_v1", images)


def test_it_equals_torchvision(googlenet: ModuleType, live: LoadedModel, images: Tensor) -> None:
    reference = with_weights_of(live, googlenet.GoogLeNet(aux_logits=False, init_weights=False))
    assert list(reference.state_dict()) == list(live.model.state_dict())
    assert_same_live_logits(float64_logits(in_float64(live), images), float64_logits(reference, images))


def test_its_auxiliary_heads_equal_torchvision(googlenet: ModuleType, images: Tensor) -> None:
    ours = create_model("inception_v1", 10, aux=True)
    theirs = googlenet.GoogLeNet(10, init_weights=False, dropout=0.0, dropout_aux=0.0)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        logits, aux1, aux2 = ours(images)
        expected = theirs(images)
        assert ours.eval()(images).shape == (3, 10)
    for found, wanted in ((logits, expected.logits), (aux1, expected.aux_logits1), (aux2, expected.aux_logits2)):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("true_5x5", [False, True])
def test_what_torchvision_publishes_loads(live: LoadedModel, true_5x5: bool) -> None:
    """torchvision's file has auxiliary heads. The size of the kernels is read from the file."""
    with torch.device("meta"):
        published = create_model("inception_v1", aux=True, true_5x5=true_5x5).state_dict()
    adapted, options = find_spec("inception_v1").adapt(published)
    assert (list(adapted), options) == (list(live.model.state_dict()), {"true_5x5": true_5x5})


def test_counts_and_shapes(live: LoadedModel, images: Tensor) -> None:
    assert parameter_count(live.model) == 6_624_904
    with torch.device("meta"):
        assert parameter_count(create_model("inception_v1", aux=True)) == 13_004_888
        assert parameter_count(create_model("inception_v1", true_5x5=True)) == 7_005_832
        assert macs(create_model("inception_v1"), 224) == pytest.approx(1.498e9, rel=0.01)
        assert macs(create_model("inception_v1", true_5x5=True), 224) == pytest.approx(1.583e9, rel=0.01)
    stages = ["conv1", "maxpool1", "conv2", "conv3", "maxpool2"]
    stages += [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert output_shapes(live.model, stages, images[:1]) == [
        *[(64, 112), (64, 56), (64, 56), (192, 56), (192, 28), (256, 28), (480, 28)],
        *[(512, 14), (512, 14), (512, 14), (528, 14), (832, 14), (832, 7), (1024, 7)],
    ]
