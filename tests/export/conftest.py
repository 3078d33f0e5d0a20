from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.photos import Photo, labelled_photos, preprocess_all
from export.pipeline import load
from models.weights import LoadedModel


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
