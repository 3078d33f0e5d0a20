"""Image bytes to pixels, with every limit on what a client may send as a picture.

The preprocessing is timm's for evaluation: resize the shorter side to the input's size over ``crop_pct``, then cut the
centre square. One resample does both. Pillow's ``resize`` takes the crop as a box in the source's own coordinates, so
that it computes no pixel outside the crop and makes no enlarged image in between.
"""

import io
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from service.errors import InvalidImage
from service.inference.picture_cost import check_size

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

Image.MAX_IMAGE_PIXELS = None  # ``decode`` has a limit of its own, which is an error where Pillow's may be a warning

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
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the picture it belongs to


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """timm's terms for evaluation. ``crop_mode`` "center" resizes by ``crop_pct`` and crops, "squash" takes it all."""

    crop_pct: Annotated[float, Gt(0.0), Le(1.0)]
    crop_mode: Literal["center", "squash"]
    interpolation: Literal["bilinear", "bicubic"]


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


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header. Raises InvalidImage, or ImageTooLarge for the size that the header declares."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise InvalidImage(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # each of Pillow's parsers raises what it likes on damaged headers
        raise InvalidImage(f"the image's header is damaged: {error}") from error
    check_size(image.width, image.height, max_pixels)
    return image


def _resizable(image: Image.Image) -> Image.Image:
    """Return the picture as RGB or grey, over white where it is transparent: resampling must mix real colours."""
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I;16"):
        # Pillow clips 16 bits to 8; the high byte is the picture.
        return Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _draft(image: Image.Image, size: int, preprocessing: Preprocessing) -> int:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 of its size, if its crop is still as large as the input; return 2, 4 or 8.

    Pillow then transforms only the lower frequencies of each block, into fewer pixels. Returns 1 when the picture is
    decoded whole.
    """
    left, top, right, bottom = crop_box(image.width, image.height, size, preprocessing)
    times = int(min(right - left, bottom - top) / size)
    if times < 2 or not isinstance(image, JpegImageFile):
        return 1
    width = image.width
    drafted = image.draft(None, (image.width // times, image.height // times))
    return 1 if drafted is None else round(width / drafted[1][2])


def decode(
    data: bytes,
    out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    max_pixels: int,
    fast: bool = False,
) -> None:
    """Decode ``data`` into ``out``, uint8 ``[size, size, 3]`` RGB: upright, over white, the first frame.

    ``fast`` lets a large JPEG be decoded at a fraction of its size before it is resampled, in about half the time. Its
    pixels then differ by a few levels from those of the whole picture.

    Raises InvalidImage for what is no image, is damaged or ends early. Raises ImageTooLarge before decoding.
    """
    size = out.shape[0]
    with _open(data, max_pixels) as image:
        full = image.size
        times = _draft(image, size, preprocessing) if fast else 1
        try:
            image.load()
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        except MemoryError:
            raise
        except Exception as error:  # as above, for damaged pixels
            raise InvalidImage(f"the image is damaged or ends early: {error}") from error
        if orientation not in _UPRIGHT:
            orientation = 1
        width, height = full if orientation < 5 else full[::-1]
        left, top, right, bottom = _stored_box(crop_box(width, height, size, preprocessing), width, height, orientation)
        box = (left / times, top / times, right / times, bottom / times)
        square = _resizable(image).resize((size, size), _RESAMPLING[preprocessing.interpolation], box)
    if orientation in _UPRIGHT:
        square = square.transpose(_UPRIGHT[orientation])
    out[...] = np.asarray(square.convert("RGB"))
