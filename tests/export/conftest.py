from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.photos import Photo, labelled_photos, preprocess_all
from export.pipeline import load
from models.weights import LoadedModel

ROOT = Path(__file__).parents[2]


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
    """The nine labelled photos as the kitchenware network takes them."""
    return preprocess_all([photo.data for photo in photos], trained_xception.preprocessing, 299)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with Xception on kitchenware weights, made by the command line, and what it printed."""
    folder = tmp_path_factory.mktemp("command-line")
    arguments = "xception --weights kitchenware --precision int8 fp16 --out repository"
    command = [sys.executable, "-m", "export", *arguments.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "repository", done.stdout


@pytest.fixture(scope="session")
def xception(exported: tuple[Path, str]) -> Path:
    """The exported version's folder. Read only: others use it too."""
    return exported[0] / "xception" / "1"
