"""PNG: its chunks, of which few hold the picture, and its transparent colour."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

from service.errors import UnsupportedType
from service.inference.formats.stored import Stored
from service.inference.formats.tiff import orientation_of

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_NEXT_PIXELS = re.compile(b"|".join(_PIXELS))
_GREY, _RGB = 0, 2  # types of colour


def bare(data: bytes) -> Stored:
    """Return the PNG with nothing but its header, palette, transparency and pixels. Of an APNG, the still picture.

    A metadata chunk whose length is wrong ends where the next chunk of pixels begins. Raises UnsupportedType for a
    chunk that changes the pixels in ways of its own.
    """
    kept, orientation, at = [data[:8]], 1, 8
    while len(name := data[at + 4 : at + 8]) == 4 and name != b"IEND":
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if name in _PIXELS:
            if data[end - 4 : end] != struct.pack(">I", zlib.crc32(memoryview(data)[at + 4 : end - 4])):
                kept.append(data[at : at + 8])  # the picture ends where the damage begins
                break
            kept.append(data[at:end])
        elif name.isalpha() and name[:1].isupper():
            raise UnsupportedType(f"this is a PNG with a chunk {name.decode()}, which is not read")
        elif not data[end + 4 : end + 8].isalpha():
            found = _NEXT_PIXELS.search(data, at + 8)
            end = found.start() - 4 if found else len(data)
        elif name == b"eXIf":
            orientation = orientation_of(data[at + 8 : end - 4])
        at = end
    return Stored(b"".join(kept), orientation)


def keyed(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded PNG whose transparent colour, if it has one, is of the same scale as its pixels.

    Pillow reduces pixels to 8 bits, or expands them, and leaves the colour as it is in the file.
    """
    depth, colours = data[24], data[25]
    if "transparency" not in image.info:
        return image
    if colours == _GREY and 1 < depth < 8:
        image.info["transparency"] *= 255 // (2**depth - 1)
    if (colours, depth) != (_RGB, 16):
        return image
    with Image.open(io.BytesIO(data), formats=["PNG"]) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # the other byte of each sample
        samples = np.asarray(image, np.uint16) << 8 | np.asarray(lower)
    shown = (samples != image.info.pop("transparency")).any(axis=-1)
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray(shown))
    return rgba
