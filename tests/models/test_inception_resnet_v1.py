"""Inception-ResNet-v1 equals facenet-pytorch's implementation, and reads FaceNet's weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models import create_model
from models.weights import _set_batch_norm_statistics, load_model

pytestmark = pytest.mark.usefixtures("one_thread")

PhotoBatch = Callable[[int], Tensor]
IDENTITIES = tuple(f"identity {i}" for i in range(10))


@pytest.fixture(scope="module")
def facenet() -> Iterator[Callable[..., Any]]:
    """The network of facenet-pytorch. The package's __init__ imports torchvision, so it does not run."""
    spec = find_spec("facenet_pytorch")
    assert spec is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "facenet_pytorch", module_from_spec(spec))
        yield import_module("facenet_pytorch.models.inception_resnet_v1").InceptionResnetV1


@pytest.fixture(scope="module")
def images(photo_batch: PhotoBatch) -> Tensor:
    return photo_batch(128)[:2]


@pytest.fixture
def reference(facenet: Callable[..., Any], images: Tensor) -> Any:
    """A classifier of facenet-pytorch in float64, whose every BatchNorm has a random scale and live statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = facenet(classify=True, num_classes=10, dropout_prob=0.0)
        for name, parameter in model.named_parameters():
            if "bn" in name:
                nn.init.uniform_(parameter, *((0.5, 1.5) if name.endswith("weight") else (-0.2, 0.2)))
    _set_batch_norm_statistics(model, images)
    return model.double().eval()


def saved(state: dict[str, Tensor], path: Path) -> str:
    torch.save({key: value.float() if value.is_floating_point() else value for key, value in state.items()}, path)
    return str(path)


@torch.no_grad()
def float64(model: nn.Module, images: Tensor) -> Tensor:
    out: Tensor = model.double()(images.double())
    return out


def assert_same_live_answers(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    found, expected = float64(ours, images), float64(theirs, images)
    assert (found[0] - found[1]).abs().max() >= 1e-2
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_classifier_of_facenet_gives_the_same_logits(reference: Any, images: Tensor, tmp_path: Path) -> None:
    weights = saved(reference.state_dict(), tmp_path / "facenet.pt")
    loaded = load_model("inception_resnet_v1", weights, labels=IDENTITIES)
    assert loaded.options == {"num_classes": 10, "embedding": 512}
    assert_same_live_answers(loaded.model, reference, images)


def test_facenet_without_a_classifier_gives_the_same_embeddings(reference: Any, images: Tensor, tmp_path: Path) -> None:
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith("logits.")}
    loaded = load_model("inception_resnet_v1", saved(state, tmp_path / "facenet.pt"))
    assert loaded.options == {"num_classes": 0, "embedding": 512}
    assert loaded.labels == ()
    reference.classify = False
    assert_same_live_answers(loaded.model, reference, images)


def test_a_classifier_without_bottleneck_gives_the_same_logits(reference: Any, images: Tensor) -> None:
    reference.last_linear = reference.last_bn = nn.Identity()
    reference.logits = nn.Linear(1792, 10)
    ours = create_model("inception_resnet_v1", 10).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    assert_same_live_answers(ours, reference, images)


@pytest.mark.parametrize(
    ("classes", "embedding", "parameters"),
    [(1000, None, 24_357_096), (0, 512, 23_482_624), (8631, 512, 23_482_624 + 8631 * 513)],
)
def test_parameter_counts(classes: int, embedding: int | None, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model("inception_resnet_v1", classes, embedding=embedding)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("side", "sides", "macs"),
    [(299, (149, 147, 147, 73, 71, 35, 17, 8), 6.309e9), (160, (79, 77, 77, 38, 36, 17, 8, 3), 1.418e9)],
)
def test_stage_shapes_and_cost(side: int, sides: tuple[int, ...], macs: float) -> None:
    names = ["conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_4a", "repeat_1", "repeat_2", "block8"]
    found: dict[str, Any] = {}
    with torch.device("meta"):
        model = create_model("inception_resnet_v1").eval()
        for name in names:
            model.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: found.update({name: tuple(output.shape[1:])})
            )
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, side, side))
    channels = (32, 32, 64, 64, 192, 256, 896, 1792)
    assert [found[name] for name in names] == [(c, s, s) for c, s in zip(channels, sides, strict=True)]
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=0.01)


@pytest.fixture(scope="module")
def casia() -> nn.Module:
    return load_model("inception_resnet_v1", "casia").model


def test_casia_weights_embed_as_opencv_does(casia: nn.Module) -> None:
    """The figures are OpenCV 4.6.0's for the package's own file, which later versions of OpenCV can't read."""
    y, x, channel = np.ogrid[:160, :160, :3]
    pattern = (7 * y + 13 * x + 50 * channel) % 256
    image = torch.from_numpy((pattern - 127.5) / 128).permute(2, 0, 1)[None]
    expected = [0.016546, 0.033369, 0.074007, -0.021462, 0.003935, -0.026467]
    assert float64(casia, image)[0, :6].tolist() == pytest.approx(expected, abs=1e-6)


def test_casia_weights_recognise_a_face_in_the_mirror(casia: nn.Module, photo_batch: PhotoBatch) -> None:
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        face = np.array(photo.crop((150, 80, 370, 330)).resize((160, 160), Image.Resampling.BILINEAR))
    image = (torch.from_numpy(face).permute(2, 0, 1) - 127.5) / 128
    person, mirrored, thing = float64(casia, torch.stack([image, image.flip(2), photo_batch(160)[0]]))
    assert person @ mirrored > 0.9
    assert person @ thing < 0.5
