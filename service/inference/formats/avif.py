"""AVIF: its items, one of which may be EXIF. A picture's orientation is an item's property, so EXIF is not needed."""

import re

from service.inference.formats.stored import Stored

_EXIF = re.compile(rb"(infe[\x02\x03].{7,9}?)Exif", re.DOTALL)


def bare(data: bytes) -> Stored:
    """Return the AVIF with its EXIF under a name that no reader looks for."""
    return Stored(_EXIF.sub(rb"\1skip", data))
