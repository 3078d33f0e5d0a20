from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import pytest
import torch

from models.weights import LoadedModel, load_model

# On the torch backend, Keras' variables do not support NumPy 2's copy argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model(keras: ModuleType) -> Any:
    """A network with a hidden layer. No two of its arrays are equal, so a test notices exchanged arrays."""
    keras.utils.set_random_seed(1)
    backbone = keras.applications.Xception(weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3))
    hidden = keras.layers.Dense(10, activation="relu")(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(3)(keras.layers.Dropout(0.2)(hidden)))
    generator = torch.Generator().manual_seed(1)
    model.set_weights([torch.rand(weight.shape, generator=generator).numpy() for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def keras_file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("keras-files") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def from_keras_file(keras_file: Path) -> LoadedModel:
    return load_model("xception", str(keras_file), labels=LABELS)


def test_a_keras_file_says_what_the_architecture_is(from_keras_file: LoadedModel) -> None:
    assert from_keras_file.options == {"num_classes": 3, "padding": "tf_same", "bn_eps": 1e-3, "hidden_units": 10}
    assert json.loads(json.dumps(from_keras_file.options)) == from_keras_file.options
    assert from_keras_file.source == "file:model.keras"


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("conv1", "block1_conv1"),
        ("block3.rep.1", "block4_sepconv1"),
        ("block5.rep.8", "block6_sepconv3_bn"),
        ("bn4", "block14_sepconv2_bn"),
    ],
)
def test_named_layers_arrive_where_their_names_say(
    from_keras_file: LoadedModel, model: Any, module: str, layer: str
) -> None:
    ours = [
        value for key, value in from_keras_file.model.get_submodule(module).state_dict().items() if "num" not in key
    ]
    theirs = [weight.value.cpu() for weight in model.get_layer(layer).weights]
    for own, their in zip(ours, theirs, strict=True):
        assert torch.equal(own.flatten().sort().values, their.flatten().sort().values)


@pytest.mark.parametrize("name", ["new.weights.h5", "whole.h5", "bare.h5"])
def test_every_format_gives_the_same_weights(
    keras: ModuleType, model: Any, from_keras_file: LoadedModel, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    match name:
        case "new.weights.h5":
            model.save_weights(path)
        case "whole.h5":
            model.save(path)
        case "bare.h5":  # the layout of Keras' published application weights
            with h5py.File(path, "w") as file:
                keras.src.legacy.saving.legacy_h5_format.save_weights_to_hdf5_group(file, model)

    loaded = load_model("xception", str(path), labels=LABELS)

    assert loaded.options == from_keras_file.options
    expected = from_keras_file.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items())


def with_config_changed(keras_file: Path, copy: Path, old: str, new: str) -> str:
    """Copy a .keras file, and replace ``old`` by ``new`` in its architecture."""
    with zipfile.ZipFile(keras_file) as source, zipfile.ZipFile(copy, "w") as target:
        config = source.read("config.json").decode()
        assert old in config
        target.writestr("config.json", config.replace(old, new))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    return str(copy)


def test_a_layer_that_xception_lacks_is_refused(keras_file: Path, tmp_path: Path) -> None:
    path = with_config_changed(keras_file, tmp_path / "a.keras", '"class_name": "Dropout"', '"class_name": "Rescaling"')
    with pytest.raises(
        ValueError, match=r"a\.keras is not a Keras Xception: .*layers that Xception has not: Rescaling"
    ):
        load_model("xception", path, labels=LABELS)


def test_another_hidden_activation_is_refused(keras_file: Path, tmp_path: Path) -> None:
    old = '"units": 10, "activation": "relu"'
    path = with_config_changed(keras_file, tmp_path / "a.keras", old, old.replace("relu", "tanh"))
    with pytest.raises(ValueError, match="hidden layer's activation is not relu"):
        load_model("xception", path, labels=LABELS)


def test_another_epsilon_is_refused(keras_file: Path, tmp_path: Path) -> None:
    path = with_config_changed(keras_file, tmp_path / "a.keras", '"epsilon": 0.001', '"epsilon": 0.01')
    with pytest.raises(ValueError, match=r"does not use epsilon 0\.001"):
        load_model("xception", path, labels=LABELS)


def test_another_network_is_refused(keras: ModuleType, tmp_path: Path) -> None:
    layers = keras.layers
    small = keras.Sequential([layers.Input((32, 32, 3)), layers.Conv2D(4, 3, use_bias=False), layers.Dense(3)])
    small.save(tmp_path / "small.keras")
    small.save_weights(tmp_path / "small.weights.h5")
    for name in ("small.keras", "small.weights.h5"):
        with pytest.raises(
            ValueError, match=f"{name} is not a Keras Xception: it has 1 convolution layers instead of 6"
        ):
            load_model("xception", str(tmp_path / name))


def test_a_layer_with_other_arrays_is_refused(keras: ModuleType, tmp_path: Path) -> None:
    keras.Sequential([keras.layers.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)]).save_weights(
        tmp_path / "a.weights.h5"
    )
    with pytest.raises(ValueError, match="no layer of Xception holds arrays like those of 'conv2d/vars'"):
        load_model("xception", str(tmp_path / "a.weights.h5"))


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither zip nor hdf5")
    with pytest.raises(ValueError, match=f"{name} is not a Keras Xception"):
        load_model("xception", str(tmp_path / name))


def test_a_truncated_file_is_refused(keras_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.keras").write_bytes(keras_file.read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match=r"cut\.keras is not a Keras Xception"):
        load_model("xception", str(tmp_path / "cut.keras"))


def test_inception_v4_has_no_keras_weights(keras_file: Path) -> None:
    with pytest.raises(ValueError, match="for xception only, not for inception_v4"):
        load_model("inception_v4", str(keras_file))
