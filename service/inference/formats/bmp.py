"""BMP: its palette."""

import struct

from service.inference.formats.stored import Stored


def bare(data: bytes) -> Stored:
    """Return the BMP with a palette that is no ramp of greys.

    Pillow drops such a palette, and then reads pixels of 4 or 8 bits as if they had 1 or 8. One level more of blue in
    the palette's first colour, which is black in a ramp, keeps the palette.
    """
    (header,) = struct.unpack_from("<I", data, 14)
    (bits,) = struct.unpack_from("<H", data, 24 if header == 12 else 28)
    first = 14 + header
    if bits in (4, 8) and data[first] == 0:
        data = data[:first] + b"\1" + data[first + 1 :]
    return Stored(data)
