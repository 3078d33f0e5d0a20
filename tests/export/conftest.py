from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.photos import Photo, labelled_photos, preprocess_all
from export.pipeline import load
from models.weights import LoadedModel
from tests.export.graphs import normalised, run


@pytest.fixture(scope="session")
def photos() -> list[Photo]:
    return labelled_photos()


@pytest.fixture(scope="session")
def trained_xception(photos: list[Photo]) -> LoadedModel:
    return load("xception", "kitchenware", photos, None)


@pytest.fixture(scope="session")
def live_inception_v4(photos: list[Photo]) -> LoadedModel:
    return load("inception_v4", "untrained", photos, None)


@pytest.fixture(scope="session")
def squashed(photos: list[Photo], trained_xception: LoadedModel) -> NDArray[np.uint8]:
    """The nine labelled photos, preprocessed for the kitchenware network."""
    return preprocess_all([photo.data for photo in photos], trained_xception.preprocessing)


@pytest.fixture(scope="session")
def xception(model_repository: Path) -> Path:
    """The folder of Xception's version that ``make export`` wrote. Other tests use it too, so don't change it."""
    return model_repository / "xception" / "1"


@pytest.fixture(scope="session", params=["trained_xception", "live_inception_v4"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    found: LoadedModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def pixels(squashed: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(squashed[[0, 2], ::2, ::2].copy())  # a plate and a knife, at half size for speed


@pytest.fixture(scope="session")
def expected(loaded: LoadedModel, pixels: Tensor) -> Tensor:
    """The float64 logits of the network before any rewrite. They differ between the two images."""
    logits = run(copy.deepcopy(loaded.model).double(), normalised(pixels, loaded.preprocessing))
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    return logits
