"""Our networks equal independent implementations with the same weights, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pytorchcv.models.common import SEBlock
from pytorchcv.models.inceptionresnetv2 import inceptionresnetv2
from pytorchcv.models.inceptionv3 import inceptionv3
from pytorchcv.models.inceptionv4 import inceptionv4
from pytorchcv.models.xception import xception
from torch import Tensor, nn

from models import create_model
from models.kitchenware import KITCHENWARE
from models.layers import SqueezeExcitation
from models.weights import LoadedModel, _set_batch_norm_statistics, fetch, load_model, untrained_model
from tests.models.measures import assert_same_live_logits, float64_logits, in_float64, with_weights_of

PhotoBatch = Callable[[int], Tensor]

# On the torch backend, Keras' variables do not support NumPy 2's copy argument yet.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


def test_xception_equals_pytorchcv(live_xception: LoadedModel, images: Tensor) -> None:
    reference = with_weights_of(live_xception, xception())
    assert live_xception.options["padding"] == "torch"
    model = in_float64(live_xception)
    assert_same_live_logits(float64_logits(model, images), float64_logits(reference, images))


def test_inception_v4_equals_pytorchcv(live_inception_v4: LoadedModel, images: Tensor) -> None:
    reference = with_weights_of(live_inception_v4, inceptionv4())
    model = in_float64(live_inception_v4)
    assert_same_live_logits(float64_logits(model, images), float64_logits(reference, images))


@pytest.mark.parametrize(
    ("name", "reference"), [("inception_v3", inceptionv3), ("inception_resnet_v2", inceptionresnetv2)]
)
def test_networks_equal_pytorchcv(name: str, reference: Callable[..., nn.Module], photo_batch: PhotoBatch) -> None:
    photos = photo_batch(107)[:3]
    loaded = untrained_model(name, photos)
    theirs = with_weights_of(loaded, reference())
    theirs.set_submodule("features.final_pool", nn.AdaptiveAvgPool2d(1))  # theirs needs a last map of 8x8
    assert_same_live_logits(float64_logits(in_float64(loaded), photos), float64_logits(theirs, photos))


def test_inception_resnet_v2_with_squeeze_and_excitation_equals_parts_of_pytorchcv(photo_batch: PhotoBatch) -> None:
    """pytorchcv's network, with pytorchcv's block behind the projection of each residual block."""
    photos = photo_batch(107)[:2]
    reference = inceptionresnetv2()
    reference.features.final_pool = nn.AdaptiveAvgPool2d(1)
    for block in [module for module in reference.modules() if hasattr(module, "scale")]:
        block.conv = nn.Sequential(block.conv, SEBlock(block.conv.out_channels))
    model = create_model("inception_resnet_v2", se=16)
    _set_batch_norm_statistics(model, photos)
    state = dict(zip(reference.state_dict(), model.state_dict().values(), strict=True))
    reference.load_state_dict(state)
    ours, theirs = (float64_logits(network.double().eval(), photos) for network in (model, reference))
    assert_same_live_logits(ours, theirs)


@pytest.mark.parametrize(("channels", "squeezed"), [(256, 16), (608, 38), (1056, 66)])
def test_squeeze_excitation_equals_pytorchcv(channels: int, squeezed: int) -> None:
    ours, theirs = SqueezeExcitation(channels).double(), SEBlock(channels).double()
    assert ours.reduce.weight.shape == (squeezed, channels, 1, 1)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(3, channels, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_same_live_logits(float64_logits(ours, x), float64_logits(theirs, x))


@pytest.fixture
def float64(keras: ModuleType) -> Iterator[Callable[[], None]]:
    """A function. Keras models that are built after its call compute in float64."""
    before = keras.config.floatx()
    promotion = import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    with pytest.MonkeyPatch.context() as patch:

        def switch() -> None:
            keras.config.set_floatx("float64")
            keras.config.set_dtype_policy("float64")
            # On all backends but TensorFlow, this rule makes Keras run BatchNorm in float32 under any policy.
            patch.setitem(promotion, "float64", "float64")

        yield switch
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def keras_logits(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(images.double().permute(0, 2, 3, 1), training=False)
    assert out.dtype == torch.float64
    return out


def make_live(keras: ModuleType, model: Any, images: Tensor) -> None:
    """Give every BatchNorm of a Keras model a random scale and shift, and the statistics of the batch."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            if layer.scale:
                layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(0, 0.2, layer.beta.shape))
    with torch.no_grad():
        model(images.double().permute(0, 2, 3, 1), training=True)


@pytest.mark.parametrize(
    ("name", "application", "option"),
    [
        ("xception", "Xception", {"padding": "tf_same"}),
        ("inception_v3", "InceptionV3", {"count_include_pad": False}),
        ("inception_resnet_v2", "InceptionResNetV2", {}),
    ],
)
def test_networks_equal_keras_through_its_own_files(
    keras: ModuleType,
    float64: Callable[[], None],
    photo_batch: PhotoBatch,
    tmp_path: Path,
    name: str,
    application: str,
    option: dict[str, Any],
) -> None:
    photos = photo_batch(107)[:3]  # Xception pads one of its pools on the right and bottom only
    keras.utils.set_random_seed(0)
    float64()
    build = getattr(keras.applications, application)
    reference = build(weights=None, classifier_activation=None, input_shape=(107, 107, 3))
    make_live(keras, reference, photos)
    reference.set_weights([weight.astype(np.float32) for weight in reference.get_weights()])
    reference.save(tmp_path / "a.keras")

    loaded = load_model(name, str(tmp_path / "a.keras"))

    assert loaded.options.items() >= option.items()
    assert_same_live_logits(float64_logits(in_float64(loaded), photos), keras_logits(reference, photos))


@pytest.fixture(scope="module")
def kitchenware() -> LoadedModel:
    return load_model("xception", "kitchenware")


@pytest.fixture(scope="module")
def trained_by_keras(keras: ModuleType) -> Any:
    """The published model, loaded by Keras."""
    path, _ = fetch(KITCHENWARE)
    return keras.saving.load_model(path, compile=False)


def test_trained_xception_equals_keras_at_the_size_it_was_trained(
    trained_by_keras: Any, kitchenware: LoadedModel, photo_batch: PhotoBatch
) -> None:
    photos = photo_batch(150)
    with torch.no_grad():
        ours = kitchenware.model(photos)
        theirs = trained_by_keras(photos.permute(0, 2, 3, 1), training=False)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()  # float32


@pytest.mark.parametrize("side", [150, 299])
def test_trained_xception_equals_keras_in_float64(
    keras: ModuleType,
    float64: Callable[[], None],
    trained_by_keras: Any,
    kitchenware: LoadedModel,
    photo_batch: PhotoBatch,
    side: int,
) -> None:
    float64()
    backbone = keras.applications.Xception(weights=None, include_top=False, input_shape=(side, side, 3), pooling="avg")
    hidden = keras.layers.Dense(100, activation="relu")(backbone.output)
    reference = keras.Model(backbone.input, keras.layers.Dense(6)(hidden))
    reference.set_weights(trained_by_keras.get_weights())
    photos = photo_batch(side)[:2]

    ours = float64_logits(in_float64(kitchenware), photos)

    assert_same_live_logits(ours, keras_logits(reference, photos))


def test_trained_xception_names_what_is_on_every_labelled_photo(
    kitchenware: LoadedModel, photo_batch: PhotoBatch, kitchenware_photos: list[tuple[Path, str | None]]
) -> None:
    labels = [label for _, label in kitchenware_photos]
    labelled = [index for index, label in enumerate(labels) if label is not None]
    with torch.no_grad():
        answers = kitchenware.model(photo_batch(299)[labelled]).argmax(dim=1)
    assert len(labelled) == 9
    assert [kitchenware.labels[answer] for answer in answers] == [labels[index] for index in labelled]
