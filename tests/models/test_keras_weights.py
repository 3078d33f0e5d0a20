from __future__ import annotations

import inspect
import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import pytest
import torch

from models.weights import LoadedModel, load_model
from models.xception import Xception

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
    said = {"num_classes": 3, "padding": "tf_same", "bn_eps": 1e-3, "hidden_units": [10]}
    defaults = {option.name: option.default for option in inspect.signature(Xception).parameters.values()}
    assert from_keras_file.options == defaults | said
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


@pytest.fixture(scope="module")
def inception_v3(keras: ModuleType) -> Any:
    """Inception-v3, whose BatchNorm has no gamma and whose branches have layers at the same depth."""
    keras.utils.set_random_seed(2)
    return keras.applications.InceptionV3(weights=None, input_shape=(75, 75, 3), classes=3)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_every_format_of_inception_v3_gives_the_same_weights(inception_v3: Any, tmp_path: Path, name: str) -> None:
    (inception_v3.save_weights if "weights" in name else inception_v3.save)(tmp_path / name)
    loaded = load_model("inception_v3", str(tmp_path / name), labels=LABELS)
    assert loaded.options == {"num_classes": 3, "count_include_pad": False, "aux": False, "hidden_units": []}
    convolutions = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Conv2d)]
    layers = [layer for layer in inception_v3.layers if type(layer).__name__ == "Conv2D"]
    layers.sort(key=lambda layer: int(layer.name.rpartition("_")[2]) if "_" in layer.name else 0)  # as they were made
    for ours, theirs in zip(convolutions, layers, strict=True):
        assert torch.equal(ours.weight, theirs.kernel.value.cpu().permute(3, 2, 0, 1))
    assert all(
        bool((norm.weight == 1).all()) for norm in loaded.model.modules() if isinstance(norm, torch.nn.BatchNorm2d)
    )


def test_inception_v3_with_another_border_is_refused(inception_v3: Any, tmp_path: Path) -> None:
    inception_v3.save(tmp_path / "a.keras")
    path = with_config_changed(
        tmp_path / "a.keras",
        tmp_path / "b.keras",
        '"padding": "same", "strides": [1, 1], "data_format"',
        '"padding": "valid", "strides": [1, 1], "data_format"',
    )
    with pytest.raises(ValueError, match=r"is not a Keras InceptionV3: its layer .* has padding valid instead of same"):
        load_model("inception_v3", path, labels=LABELS)


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
        ValueError, match=r"a\.keras is not a Keras Xception: .*layers that the network has not: Rescaling"
    ):
        load_model("xception", path, labels=LABELS)


HIDDEN, HEAD = '"units": 10, "activation": "relu"', '"units": 3, "activation": "linear"'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (HIDDEN, HIDDEN.replace("relu", "tanh"), "the strange activation tanh"),
        (HEAD, HEAD.replace("linear", "sigmoid"), "its head ends in the activation sigmoid"),
        (HEAD, HEAD.replace("linear", "tanh"), "its head ends in the activation tanh"),
        (HEAD, HEAD.replace('"linear"', '{"class_name": "LeakyReLU"}'), "its head ends in the activation .*LeakyReLU"),
        ('"activation": "linear"', '"activation": "relu"', "'block1_conv1' has the strange activation relu"),
        ('"epsilon": 0.001', '"epsilon": 0.01', r"'block1_conv1_bn' has epsilon 0\.01 instead of 0\.001"),
        ('"pool_size": [3, 3]', '"pool_size": [2, 2]', r"'block2_pool' has pool_size \[2, 2\] instead of"),
    ],
)
def test_a_network_that_computes_something_else_is_refused(
    keras_file: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = with_config_changed(keras_file, tmp_path / "a.keras", old, new)
    with pytest.raises(ValueError, match=rf"a\.keras is not a Keras Xception: .*{told}"):
        load_model("xception", path, labels=LABELS)


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
@pytest.mark.parametrize(
    ("activations", "told"),
    [
        (["softmax"], None),
        (["linear", "softmax"], None),
        (["linear", "sigmoid"], "sigmoid"),
        (["softmax", "softmax"], "softmax and softmax"),
        (["linear", "relu"], "relu"),
    ],
)
def test_the_end_of_the_head(
    keras: ModuleType, model: Any, tmp_path: Path, name: str, activations: list[str], told: str | None
) -> None:
    """Whatever follows the last dense layer counts, in both formats that hold the architecture."""
    first, *others = activations
    out = keras.layers.Dense(3, activation=first)(model.layers[-2].output)
    for other in others:
        out = keras.layers.ReLU()(out) if other == "relu" else keras.layers.Activation(other)(out)
    keras.Model(model.input, out).save(tmp_path / name)
    if told is None:
        assert load_model("xception", str(tmp_path / name), labels=LABELS).options["hidden_units"] == [10]
    else:
        with pytest.raises(ValueError, match=f"its head ends in the activation {told}, not in softmax"):
            load_model("xception", str(tmp_path / name), labels=LABELS)


def test_a_network_without_a_head_is_refused(keras: ModuleType, model: Any, tmp_path: Path) -> None:
    keras.Model(model.input, model.layers[-4].output).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"a\.keras is not a Keras Xception: it has 0 layers like Linear instead of 1"):
        load_model("xception", str(tmp_path / "a.keras"), labels=LABELS)


def test_an_archive_whose_architecture_is_null_is_refused(keras_file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(keras_file) as source, zipfile.ZipFile(tmp_path / "a.keras", "w") as target:
        target.writestr("config.json", "null")
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    with pytest.raises(ValueError, match=r"a\.keras is not a Keras Xception"):
        load_model("xception", str(tmp_path / "a.keras"), labels=LABELS)


def test_another_network_is_refused(keras: ModuleType, tmp_path: Path) -> None:
    layers = keras.layers
    small = keras.Sequential([layers.Input((32, 32, 3)), layers.Conv2D(4, 3, use_bias=False), layers.Dense(3)])
    small.save(tmp_path / "small.keras")
    small.save_weights(tmp_path / "small.weights.h5")
    for name in ("small.keras", "small.weights.h5"):
        with pytest.raises(
            ValueError, match=f"{name} is not a Keras Xception: it has 1 layers like Conv2d instead of 6"
        ):
            load_model("xception", str(tmp_path / name))


def test_a_layer_with_other_arrays_is_refused(keras: ModuleType, tmp_path: Path) -> None:
    keras.Sequential([keras.layers.Input((32, 3)), keras.layers.Conv1D(4, 3)]).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="no layer of the network holds arrays like those of 'conv1d/vars'"):
        load_model("xception", str(tmp_path / "a.weights.h5"))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(keras_file: Path, tmp_path: Path, share: float) -> None:
    content = keras_file.read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.keras is a zip archive without its end: it is truncated"):
        load_model("xception", str(tmp_path / "cut.keras"))
    with zipfile.ZipFile(keras_file) as archive:
        content = archive.read("model.weights.h5")
    (tmp_path / "cut.h5").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.h5 is not a Keras Xception: .*truncated"):
        load_model("xception", str(tmp_path / "cut.h5"))


def test_a_damaged_archive_is_refused(keras_file: Path, tmp_path: Path) -> None:
    content = bytearray(keras_file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.keras is not a Keras Xception: Bad CRC-32"):
        load_model("xception", str(tmp_path / "a.keras"))


def test_inception_v4_has_no_keras_weights(keras_file: Path) -> None:
    with pytest.raises(ValueError, match=r"Keras weights of inception_v4 can.t be read"):
        load_model("inception_v4", str(keras_file))
