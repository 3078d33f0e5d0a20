"""Image bytes to pixels, with every limit on what a client may send as a picture.

The preprocessing is timm's for evaluation: resize the shorter side to the input's size over ``crop_pct``, then cut the
centre square. One resample does both. Pillow's ``resize`` takes the crop as a box in the source's own coordinates, so
that it computes no pixel outside the crop and makes no enlarged image in between.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import InvalidImage, ServiceError
from service.inference.colours import over_white
from service.inference.formats import FORMATS, bare, format_of
from service.inference.formats.png import keyed
from service.inference.picture_cost import check_size

Image.MAX_IMAGE_PIXELS = None  # ``decode`` has a limit of its own, which is an error where Pillow's may be a warning

_BEFORE = b"\xef\xbb\xbf\r\n\t "  # of byte order marks and line ends, which some programs put before a picture
_EXIF_ORIENTATION = 0x0112
# What turns the stored picture upright, by EXIF orientation (1 needs nothing).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the picture it belongs to


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """timm's terms for evaluation. ``crop_mode`` "center" resizes by ``crop_pct`` and crops, "squash" takes it all."""

    crop_pct: Annotated[float, Gt(0.0), Le(1.0)]
    crop_mode: Literal["center", "squash"]
    interpolation: Literal["nearest", "bilinear", "bicubic"]


def crop_box(width: int, height: int, size: int, preprocessing: Preprocessing) -> Box:
    """Return the part of a ``width`` x ``height`` picture that becomes the ``size`` x ``size`` input, all in pixels.

    timm and torchvision round sizes and offsets in the resized picture. They are rounded alike here, then scaled back.
    """
    if preprocessing.crop_mode == "squash":
        return (0.0, 0.0, float(width), float(height))
    shorter = math.floor(size / preprocessing.crop_pct)
    if width <= height:
        resized_width, resized_height = shorter, int(shorter * height / width)
    else:
        resized_width, resized_height = int(shorter * width / height), shorter
    left = round((resized_width - size) / 2.0)
    top = round((resized_height - size) / 2.0)
    across, down = width / resized_width, height / resized_height
    return (left * across, top * down, (left + size) * across, (top + size) * down)


def _stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Map a box of the upright ``width`` x ``height`` picture onto the picture as stored."""
    left, top, right, bottom = box
    if orientation in (2, 3, 6, 7):  # mirrored along the upright width
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):  # mirrored along the upright height
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    """Turn what Pillow raises in the block into InvalidImage: each of its parsers raises what it likes on damage."""
    try:
        yield
    except (MemoryError, ServiceError):
        raise
    except (UnidentifiedImageError, AssertionError) as error:  # they say nothing that a client could use
        raise InvalidImage(what) from error
    except Exception as error:
        if "out of memory" in str(error).lower():  # as some decoders say it
            raise MemoryError from error
        raise InvalidImage(f"{what}: {error}") from error


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Read the header. Raises InvalidImage, or ImageTooLarge for the size that the header declares."""
    with _damage_named("the image's header is damaged"):
        image = Image.open(io.BytesIO(data), formats=[name])
    check_size(image.width, image.height, max_pixels)
    return image


def _draft(image: Image.Image, size: int, preprocessing: Preprocessing) -> int:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 of its size, if its crop is still as large as the input; return 2, 4 or 8.

    Pillow then transforms only the lower frequencies of each block, into fewer pixels. Returns 1 when the picture is
    decoded whole, as for "nearest", which takes single pixels and no means of many.
    """
    left, top, right, bottom = crop_box(image.width, image.height, size, preprocessing)
    times = int(min(right - left, bottom - top) / size)
    if times < 2 or not isinstance(image, JpegImageFile) or preprocessing.interpolation == "nearest":
        return 1
    width = image.width
    drafted = image.draft(None, (image.width // times, image.height // times))
    return 1 if drafted is None else round(width / drafted[1][2])


def _load(image: Image.Image, size: int, preprocessing: Preprocessing, fast: bool) -> int:
    """Decode the pixels. Return 2, 4 or 8 for a JPEG that was decoded at that fraction of its size, else 1."""
    times = _draft(image, size, preprocessing) if fast else 1
    image.load()
    return times


def decode(
    data: bytes,
    out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    max_pixels: int,
    fast: bool = False,
    formats: Sequence[str] = FORMATS,
) -> None:
    """Decode ``data`` into ``out``, uint8 ``[size, size, 3]`` RGB: upright, over white, the first frame.

    ``fast`` lets a large JPEG be decoded at a fraction of its size before it is resampled, in about half the time. Its
    pixels then differ by a few levels from those of the whole picture. ``formats`` are those of FORMATS that are read.

    Raises InvalidImage for what is no image, is damaged or ends early. Raises UnsupportedType for a file of another
    kind, and for pixels whose colours are not surely known. Raises ImageTooLarge before decoding.
    """
    size = out.shape[0]
    data = data.lstrip(_BEFORE)
    name = format_of(data, formats)
    with _damage_named("the image's header is damaged"):
        stored = bare(data, name)
    with _open(stored.data, name, max_pixels) as image, _damage_named("the image is damaged or ends early"):
        full = image.size
        times = _load(image, size, preprocessing, fast)
        if stored.twin is not None:
            twin = _open(stored.twin, name, max_pixels)
            _load(twin, size, preprocessing, fast)
            if twin.tobytes() != image.tobytes():
                raise InvalidImage("the image ends early")
        orientation = image.getexif().get(_EXIF_ORIENTATION, stored.orientation)
        width, height = full if orientation < 5 else full[::-1]
        left, top, right, bottom = _stored_box(crop_box(width, height, size, preprocessing), width, height, orientation)
        box = (left / times, top / times, right / times, bottom / times)
        picture = over_white(keyed(image, stored.data) if name == "PNG" else image)
        square = picture.resize((size, size), _RESAMPLING[preprocessing.interpolation], box)
    if orientation in _UPRIGHT:
        square = square.transpose(_UPRIGHT[orientation])
    out[...] = np.asarray(square.convert("RGB"))
