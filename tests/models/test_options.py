from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from models import NETWORKS, find_spec
from models.options import all_options, check_size
from models.weights import untrained_model


def test_defaults_then_the_weights_then_the_user() -> None:
    spec = find_spec("xception")
    implied = {"num_classes": 6, "hidden_units": [100], "padding": "tf_same"}
    options = all_options(spec, implied, {"padding": "torch"})
    assert options == options | {"num_classes": 6, "padding": "torch", "bn_eps": 1e-5, "hidden_units": [100]}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (
            {"aux": True},
            "xception has no option 'aux'; its options are padding=torch, bn_eps=1e-05, hid",
        ),
        ({"num_classes": 5}, "xception has no option 'num_classes'; its options are padding=torch"),
        ({"bn_eps": "small"}, "option bn_eps of xception: Input should be a valid number, .*, not 'small'"),
        ({"bn_eps": [1]}, r"option bn_eps of xception: Input should be a valid number, not \[1\]"),
        ({"hidden_units": [-1]}, r"xception can't be built with .*'hidden_units': \[-1\]"),
        ({"padding": "same"}, "option padding of xception: Input should be 'torch' or 'tf_same', not 'same'"),
    ],
)
def test_a_wrong_option_is_explained(option: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        all_options(find_spec("xception"), {}, option)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_option_has_a_type_and_a_default(name: str) -> None:
    """The types check what users pass. The defaults are in every manifest."""
    spec = find_spec(name)
    defaults = all_options(spec, {}, None)
    changeable = {key: value for key, value in defaults.items() if key != "num_classes"}
    assert all_options(spec, {}, changeable) == defaults


@pytest.mark.parametrize(("name", "least"), [("xception", 7), ("inception_v4", 75)])
def test_the_smallest_image_is_named(name: str, least: int) -> None:
    spec = find_spec(name)
    options = all_options(spec, {}, None)
    check_size(spec, options, least)
    with pytest.raises(
        ValueError, match=f"{name} can't take images of {least - 1} pixels a side; the next .* is {least}"
    ):
        check_size(spec, options, least - 1)


def test_untrained_networks_take_options_and_sizes(images: Tensor) -> None:
    small = images[:, :, :96, :96]
    loaded = untrained_model(
        "xception", small, num_classes=3, options={"bn_eps": 1e-3}, preprocessing={"input_size": 96, "crop_pct": 1.0}
    )
    assert loaded.options["bn_eps"] == loaded.model.get_submodule("bn1").eps == 1e-3
    assert (loaded.preprocessing.input_size, loaded.preprocessing.crop_pct) == (96, 1.0)
    assert loaded.preprocessing_origin == "the default of xception but for crop_pct, input_size"
    with pytest.raises(ValueError, match="6 pixels a side; the next size that it takes is 7"):
        untrained_model("xception", images[:, :, :6, :6])
