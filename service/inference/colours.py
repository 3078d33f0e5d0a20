"""Any picture's pixels as 8-bit RGB or grey, over white where they are transparent."""

import numpy as np
from PIL import Image

from service.errors import UnsupportedType

_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's


def over_white(image: Image.Image) -> Image.Image:
    """Return a loaded picture as RGB or grey: what mixes its pixels later must mix real colours.

    Raises UnsupportedType for floats that are not all from 0 to 1.
    """
    if image.mode[0] in "IF":
        return _deep_grey(image)
    if image.mode == "La":  # grey times its alpha
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode in ("RGB", "L") else image.convert("RGB")
    rgba = image.convert("RGBA")
    if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # the program that wrote it left alone the byte that may be alpha
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale grey of 12, 16 or 32 bits, where Pillow would clip it: the high byte is the picture."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # or there is a NaN
            raise UnsupportedType("this is a TIFF of float samples that are not all from 0 to 1: which is white?")
        grey = np.rint(values * 255)
    else:
        grey = values.astype(f"u{values.itemsize}") >> tags.get(_BITS, (16,))[0] - 8
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey = np.where(values == image.info["transparency"], 255, grey)
    return Image.fromarray(grey.astype(np.uint8))
