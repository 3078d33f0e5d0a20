"""WebP: its chunks, of which few hold the picture."""

import struct

from service.inference.formats.stored import Stored
from service.inference.formats.tiff import orientation_of

_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}


def bare(data: bytes) -> Stored:
    """Return the WebP with nothing but what its pixels need."""
    kept, orientation, at = [b"WEBP"], 1, 12
    while len(data) >= at + 8:
        name, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        if name in _PIXELS:
            kept.append(data[at:end])
        elif name == b"EXIF":
            orientation = orientation_of(data[at + 8 : end])
        at = end
    body = b"".join(kept)
    return Stored(b"RIFF" + struct.pack("<I", len(body)) + body, orientation)
