from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.photos import (
    Photo,
    all_photos,
    labelled_photos,
    normalise,
    preprocess,
    random_crops,
    write_labelled_photos,
)
from models.spec import Preprocessing


def test_labelled_photos(kitchenware_photos: list[tuple[Path, str | None]]) -> None:
    expected = [Photo(path.stem, path.read_bytes(), label) for path, label in kitchenware_photos if label is not None]
    assert len(expected) == 9
    assert labelled_photos() == expected


def test_labelled_photos_as_a_folder(photos: list[Photo], tmp_path: Path) -> None:
    write_labelled_photos(tmp_path)
    written = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert written == {f"{photo.label}/{photo.name}.jpg": photo.data for photo in photos}


def coordinates(width: int, height: int) -> Image.Image:
    """An image whose pixel at (x, y) is (x mod 256, x div 256, y mod 256). A crop's pixels tell its position."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x % 256, x // 256, y % 256], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("width", "height", "left", "top"),
    [
        (333, 333, 17, 17),
        (446, 333, 74, 17),  # half of 147 is 73.5, which rounds to even
        (333, 444, 17, 72),  # half of 145 is 72.5, which rounds to even
    ],
)
def test_the_centre_is_where_torchvision_crops(width: int, height: int, left: int, top: int) -> None:
    # The shorter side is already floor(299 / 0.8975) = 333 pixels, so nothing is resampled.
    pixels = preprocess(coordinates(width, height), Preprocessing(crop_pct=0.8975))
    assert pixels.shape == (299, 299, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [left % 256, left // 256, top % 256]
    right, bottom = left + 298, top + 298
    assert pixels[-1, -1].tolist() == [right % 256, right // 256, bottom % 256]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_the_shorter_side_is_resized_first(photos: list[Photo], interpolation: str) -> None:
    image = Image.open(io.BytesIO(photos[0].data))
    assert image.size == (750, 1000)
    resized = image.resize((341, 454), Image.Resampling[interpolation.upper()])  # floor(299 / 0.875), int(341 * 4 / 3)
    preprocessing = Preprocessing(crop_pct=0.875, interpolation=interpolation)  # type: ignore[arg-type]
    assert np.array_equal(preprocess(image, preprocessing), np.asarray(resized)[78:377, 21:320])


def test_squash_keeps_the_whole_photo(photos: list[Photo]) -> None:
    image = Image.open(io.BytesIO(photos[0].data))
    pixels = preprocess(image, Preprocessing(crop_pct=0.875, crop_mode="squash"))
    assert np.array_equal(pixels, np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC)))


def test_grey_becomes_rgb() -> None:
    assert (
        preprocess(Image.new("L", (40, 30), 7), Preprocessing(crop_pct=1.0, input_size=20)).tolist()
        == [[[7] * 3] * 20] * 20
    )


def test_normalise() -> None:
    pixels = np.array([[[[0, 51, 255], [255, 0, 102]]]], dtype=np.uint8)  # [1, 1, 2, 3]
    images = normalise(pixels, Preprocessing(crop_pct=1.0, mean=(0.5, 0.1, 0.2), std=(0.5, 0.2, 0.4)))
    assert images.shape == (1, 3, 1, 2)
    assert images.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.5, -0.5, 2.0, 0.5], abs=1e-6)


def test_all_photos(kitchenware_photos: list[tuple[Path, str | None]]) -> None:
    assert sorted(all_photos()) == sorted(path.read_bytes() for path, _ in kitchenware_photos)


def test_random_crops_are_parts_of_their_photo() -> None:
    """The photo is two ramps, so a crop's corners tell where it was cut."""
    across, down = np.meshgrid(np.arange(256), np.arange(200))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8)).save(buffer, "PNG")
    crops = random_crops([buffer.getvalue()], 64, count=20, seed=0).astype(int)
    assert crops.shape == (20, 64, 64, 3)
    assert np.array_equal(crops, random_crops([buffer.getvalue()], 64, count=20, seed=0))
    assert not np.array_equal(crops, random_crops([buffer.getvalue()], 64, count=20, seed=1))
    widths, heights = (crops[:, -1, -1, axis] - crops[:, 0, 0, axis] for axis in (0, 1))
    share = widths * heights / (256 * 200)
    assert 0.4 < share.min() < 0.7 < share.max() <= 1.0
    assert len({tuple(crop[0, 0]) for crop in crops}) > 10
