"""Live networks: under their weights the activations depend on the input, so comparisons can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.weights import LoadedModel, untrained_model

PhotoBatch = Callable[[int], Tensor]


@pytest.fixture(scope="session")
def photo_batch(kitchenware_photos: list[tuple[Path, str | None]]) -> PhotoBatch:
    """All 18 photos squashed to squares of ``side`` pixels: float32 ``[18, 3, side, side]`` in -1..1."""

    @cache
    def batch(side: int) -> Tensor:
        squares = []
        for path, _ in kitchenware_photos:
            with Image.open(path) as photo:
                squares.append(np.asarray(photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)))
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1

    return batch


@pytest.fixture(scope="session")
def images(photo_batch: PhotoBatch) -> Tensor:
    """Two photos and an image of noise, float32 ``[3, 3, 299, 299]``."""
    noise = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([photo_batch(299)[:2], noise])


@pytest.fixture(scope="session")
def live_xception(images: Tensor) -> LoadedModel:
    return untrained_model("xception", images)


@pytest.fixture(scope="session")
def live_inception_v4(images: Tensor) -> LoadedModel:
    return untrained_model("inception_v4", images)


@pytest.fixture(scope="session")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Keras with the torch backend, independent of the user's configuration."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KERAS_BACKEND", "torch")
        environment.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras  # Keras chooses its backend at import

        yield keras
