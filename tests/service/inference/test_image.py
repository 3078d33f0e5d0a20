from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import ImageTooLarge, InvalidImage, UnsupportedType
from service.inference.image import Preprocessing, crop_box, decode

SIZE = 299
CENTER = Preprocessing(crop_pct=0.8975, crop_mode="center", interpolation="bicubic")
SQUASH = Preprocessing(crop_pct=1.0, crop_mode="squash", interpolation="bicubic")


def decoded(
    data: bytes, preprocessing: Preprocessing = CENTER, max_pixels: int = 50_000_000, *, fast: bool = False
) -> NDArray[np.uint8]:
    out = np.full((SIZE, SIZE, 3), 7, np.uint8)
    decode(data, out, preprocessing, max_pixels, fast)
    return out


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def resized(image: Image.Image, width: int, height: int, *, across_first: bool) -> Image.Image:
    """Resize one axis, then the other. Pillow rounds to 8 bits between them, and chooses the order by the sizes."""
    between = (width, image.height) if across_first else (image.width, height)
    return image.resize(between, Image.Resampling.BICUBIC).resize((width, height), Image.Resampling.BICUBIC)


def two_steps(image: Image.Image, preprocessing: Preprocessing, *, across_first: bool = True) -> NDArray[np.uint8]:
    """Resize the whole picture, then crop, as timm and torchvision do. This is the reference."""
    if preprocessing.crop_mode == "squash":
        return np.asarray(resized(image, SIZE, SIZE, across_first=across_first))
    shorter = int(SIZE / preprocessing.crop_pct)
    width, height = image.size
    if width <= height:
        image = resized(image, shorter, int(shorter * height / width), across_first=across_first)
    else:
        image = resized(image, int(shorter * width / height), shorter, across_first=across_first)
    left, top = round((image.width - SIZE) / 2), round((image.height - SIZE) / 2)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def assert_preprocessed(found: NDArray[np.uint8], image: Image.Image, preprocessing: Preprocessing = CENTER) -> None:
    """Compare ``found`` with the two-step reference in either order of axes: few pixels differ, by one level."""
    differences = [
        np.abs(found.astype(int) - two_steps(image, preprocessing, across_first=across_first))
        for across_first in (True, False)
    ]
    best = min(differences, key=np.sum)
    assert best.max() <= 1
    assert best.mean() < 0.01


@pytest.fixture(scope="module")
def photo(kitchenware_photos: list[tuple[Path, str | None]]) -> Image.Image:
    return Image.open(kitchenware_photos[0][0]).convert("RGB")


@pytest.mark.parametrize("preprocessing", [CENTER, SQUASH, Preprocessing(0.875, "center", "bicubic")])
def test_one_resample_equals_resize_then_crop(
    kitchenware_photos: list[tuple[Path, str | None]], preprocessing: Preprocessing
) -> None:
    for path, _ in kitchenware_photos:
        assert_preprocessed(decoded(path.read_bytes(), preprocessing), Image.open(path), preprocessing)


@pytest.mark.parametrize("size", [(640, 480), (481, 640), (299, 299), (333, 1000), (64, 48), (1001, 334)])
def test_odd_sizes_are_cropped_where_the_reference_crops(photo: Image.Image, size: tuple[int, int]) -> None:
    picture = photo.resize(size)
    assert_preprocessed(decoded(encoded(picture)), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(500, 375), (374, 501)])
def test_exif_orientation_is_applied(photo: Image.Image, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo.resize(size), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert_preprocessed(decoded(data), upright)


def test_orientations_differ(photo: Image.Image) -> None:
    """If the picture looked the same in all orientations, the test above would check nothing."""
    upright = two_steps(photo, CENTER).astype(int)
    for method in Image.Transpose:
        assert np.abs(two_steps(photo.transpose(method), CENTER) - upright).mean() > 5


def test_cmyk(photo: Image.Image) -> None:
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert_preprocessed(decoded(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_grey(photo: Image.Image) -> None:
    grey = photo.convert("L")
    assert_preprocessed(decoded(encoded(grey)), grey.convert("RGB"))


def test_palette(photo: Image.Image) -> None:
    palette = photo.quantize(64)
    assert_preprocessed(decoded(encoded(palette)), palette.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_put_over_white(photo: Image.Image, mode: Literal["RGBA", "LA"]) -> None:
    picture = photo.convert(mode)
    alpha = Image.linear_gradient("L").resize(photo.size)
    picture.putalpha(alpha)
    colours = np.asarray(photo if mode == "RGBA" else photo.convert("L").convert("RGB"), float)
    opacity = np.asarray(alpha, float)[..., None] / 255
    over_white = Image.fromarray(np.rint(colours * opacity + 255 * (1 - opacity)).astype(np.uint8))
    assert_preprocessed(decoded(encoded(picture)), over_white)


def test_transparent_palette_entry_is_put_over_white() -> None:
    picture = Image.new("P", (400, 400), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert (decoded(encoded(picture, "GIF", transparency=0)) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(photo: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    data = encoded(deep)
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert_preprocessed(decoded(data), Image.fromarray(grey).convert("RGB"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (320, 320), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    assert decoded(data)[150, 150].tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(photo: Image.Image, kind: str) -> None:
    data = encoded(photo, kind)
    assert_preprocessed(decoded(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        decoded(data)


def test_truncated_jpeg(kitchenware_photos: list[tuple[Path, str | None]]) -> None:
    data = kitchenware_photos[0][0].read_bytes()
    with pytest.raises(InvalidImage, match="ends early"):
        decoded(data[: len(data) // 2])


def test_formats_outside_the_list_are_refused(photo: Image.Image) -> None:
    with pytest.raises(UnsupportedType, match="this is PNM, which is not read: send JPEG, PNG, "):
        decoded(encoded(photo, "PPM"))


def test_pixels_are_counted_in_the_header(photo: Image.Image) -> None:
    header_only = encoded(photo)[:60]  # signature, IHDR and some bytes: decoding would raise InvalidImage
    with pytest.raises(InvalidImage):
        decoded(header_only)
    with pytest.raises(ImageTooLarge, match="1000 allowed"):
        decoded(header_only, max_pixels=1000)


def test_extreme_shapes_cost_no_memory() -> None:
    assert crop_box(1, 20_000, SIZE, CENTER)[3] < 20_000
    assert (decoded(encoded(Image.new("RGB", (1, 20_000), "red"))) == [255, 0, 0]).all()


@pytest.mark.parametrize("preprocessing", [CENTER, SQUASH])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_gives_nearly_the_same_pixels(photo: Image.Image, orientation: int, preprocessing: Preprocessing) -> None:
    """2, 4 and 8 don't divide the sides. A crop that is off by one pixel would differ by more."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for sides, times in (((700, 901), 2), ((2003, 1403), 4)):
        data = encoded(photo.resize(sides), "JPEG", quality=95, exif=exif)
        found, exact = (decoded(data, preprocessing, fast=fast).astype(int) for fast in (True, False))
        moved = np.abs(np.roll(exact, 1, 0) - exact).mean()
        assert 0 < np.abs(found - exact).mean() < 0.25 * moved, times


def test_fast_decodes_a_fraction(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = JpegImageFile.load

    def recorded(self: JpegImageFile) -> Any:
        pixels = load(self)
        loaded.append(self.size)
        return pixels

    monkeypatch.setattr(JpegImageFile, "load", recorded)
    for sides, mode in (((700, 900), "RGB"), ((2003, 1403), "RGB"), ((700, 900), "L"), ((700, 900), "CMYK")):
        decoded(encoded(photo.resize(sides).convert(mode), "JPEG"), fast=True)
    decoded(encoded(photo.resize((660, 900)), "JPEG"), fast=True)  # the crop would have fewer than 299 pixels
    decoded(encoded(photo.resize((700, 900)), "JPEG"))
    assert list(dict.fromkeys(loaded)) == [(350, 450), (501, 351), (660, 900), (700, 900)]


def test_fast_leaves_small_pictures_and_other_formats_as_they_are(photo: Image.Image) -> None:
    for picture, kind in ((photo.resize((400, 300)), "JPEG"), (photo, "PNG")):
        data = encoded(picture, kind)
        assert np.array_equal(decoded(data, fast=True), decoded(data))


def test_fast_leaves_single_pixels_as_they_are(photo: Image.Image) -> None:
    nearest = Preprocessing(crop_pct=1.0, crop_mode="squash", interpolation="nearest")
    data = encoded(photo.resize((700, 900)), "JPEG")
    assert np.array_equal(decoded(data, nearest, fast=True), decoded(data, nearest))


@pytest.mark.parametrize("where", ["PIL.Image.open", "PIL.ImageFile.ImageFile.load"])
def test_a_lack_of_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    data = encoded(Image.new("RGB", (SIZE, SIZE)))

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(where, no_memory)
    with pytest.raises(MemoryError):
        decoded(data)
