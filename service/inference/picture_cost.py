"""Tells from a few bytes of a picture whether its decoding is cheap, before anything is decoded.

A picture's sides do not tell: a JPEG may have a thousand scans, a TIFF one huge tile. So a picture is ordinary when its
structure is one of those that are known to be cheap, and unusual when it is anything else. Reading the structure takes
a bounded number of steps, whatever the picture holds.
"""

import math
import struct
from collections.abc import Callable, Iterator

from service.errors import ImageTooLarge

Encoded = bytes | bytearray  # a picture as a client sent it: copying 20 MB would stop the event loop for a while

MAX_SIDE = 65_535  # JPEG's own limit

# What an ordinary picture may cost, in pixels of a baseline JPEG. Such a pixel takes at most 7 bytes (4 decoded, 3 of
# coefficients), and each scan goes over all pixels. A pixel of another format takes more time and more memory.
_ORDINARY_COST = 32_000_000
_OTHER_FORMATS = 2.5
_MAX_SCANS = 500  # a progressive JPEG has about 10
_MAX_STEPS = 2_000  # segments, chunks, blocks or tags
_MAX_SEARCHED = 4_000_000  # bytes of a JPEG that are searched for its scans
_CHEAP_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)  # of TIFF: none, LZW, JPEG, deflate, PackBits, deflate

_Size = tuple[int, int, float]  # width, height, and how many pixels of a baseline JPEG one pixel costs


class _Unusual(Exception):
    """The structure is not one of those that are known to be cheap."""


def is_ordinary(data: Encoded, max_pixels: int) -> bool:
    """Return whether a decoder is done with ``data`` in a fraction of a second, within a quarter of its memory.

    What is no picture may be ordinary or not: a decoder finds that out quickly.
    Raises ImageTooLarge for more than ``max_pixels`` pixels, for a side of more than 65,535 pixels, and for a JPEG of
    more than 500 scans.
    """
    read = next((read for magic, read in _FORMATS.items() if data.startswith(magic)), None)
    if read is None:
        return False
    try:
        width, height, cost = read(data)
    except (_Unusual, struct.error, LookupError):
        return False
    check_size(width, height, max_pixels)
    return width * height * cost <= _ORDINARY_COST


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageTooLarge for more than ``max_pixels`` pixels, or for a side of more than 65,535 pixels."""
    if width * height > max_pixels:
        raise ImageTooLarge(f"the picture has {width}x{height} pixels, more than the {max_pixels} allowed")
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(f"the picture has {width}x{height} pixels; a side may have at most {MAX_SIDE}")


def _jpeg(data: Encoded) -> _Size:
    """Read up to the first scan. A JPEG that may have several scans is searched for the others."""
    size: tuple[int, int, int, int] | None = None
    for at, marker, length in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2):  # sequential or progressive, with Huffman codes
            size = (marker, *struct.unpack_from(">HHB", data, at + 5))
        elif marker == 0xDA and size is not None:
            kind, height, width, components = size
            alone = kind != 0xC2 and data[at + 4] == components
            return width, height, 1 if alone else _scans(data, at + 2 + length)
    raise _Unusual


def _segments(data: Encoded) -> Iterator[tuple[int, int, int]]:
    """Yield where each segment begins, its marker, and its length without the marker."""
    at = 2
    for _ in range(_MAX_STEPS):
        marker = data[at + 1]
        if data[at] != 0xFF or not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9:  # the latter have no length
            raise _Unusual
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield at, marker, length
        at += 2 + length
    raise _Unusual


def _scans(data: Encoded, first: int) -> int:
    """Return how many scans there are up to the end of the JPEG. What follows the end may be a video."""
    if len(data) - first > _MAX_SEARCHED:
        raise _Unusual
    end = data.find(b"\xff\xd9", first)
    scans = 1 + data.count(b"\xff\xda", first, end if end >= 0 else len(data))
    if scans > _MAX_SCANS:
        raise ImageTooLarge(f"the JPEG has {scans} scans, more than the {_MAX_SCANS} allowed")
    return scans


def _png(data: Encoded) -> _Size:
    width, height = struct.unpack_from(">II", data, 16)
    at = 8
    for _ in range(_MAX_STEPS):
        if at >= len(data):
            return width, height, _OTHER_FORMATS
        (length,) = struct.unpack_from(">I", data, at)
        at += 12 + length
    raise _Unusual


def _gif(data: Encoded) -> _Size:
    """Read up to the first frame, which may be larger than the screen."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    steps = iter(range(_MAX_STEPS))
    for _ in steps:
        if data[at] == 0x2C:
            left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
            return max(width, left + across), max(height, top + down), _OTHER_FORMATS
        if data[at] != 0x21:
            raise _Unusual
        at += 2  # an extension has blocks of up to 255 bytes, the last of which is empty
        while data[at] and next(steps, None) is not None:
            at += 1 + data[at]
        at += 1
    raise _Unusual


def _bmp(data: Encoded) -> _Size:
    header, width, height, _, _, compression = struct.unpack_from("<IIiHHI", data, 14)
    if header < 40 or compression not in (0, 3):  # OS/2, or run lengths
        raise _Unusual
    return width, abs(height), _OTHER_FORMATS


def _webp(data: Encoded) -> _Size:
    """Read the canvas of an extended file, or the only frame of a simple one."""
    kind = data[8:16]
    if kind == b"WEBPVP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), _OTHER_FORMATS
    if kind == b"WEBPVP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), _OTHER_FORMATS
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, _OTHER_FORMATS
    raise _Unusual


def _tiff(data: Encoded) -> _Size:
    """Read the only directory of a file that has one page. The numbers are the tags of TIFF 6.0."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    if count > _MAX_STEPS or struct.unpack_from(f"{order}I", data, at + 2 + 12 * count) != (0,):
        raise _Unusual
    counts, values = dict[int, int](), dict[int, int]()
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, counts[tag] = struct.unpack_from(f"{order}HHI", data, entry)
        (values[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    pieces = max(counts.get(273, 0), counts.get(324, 0))  # strips or tiles
    compression, samples = values.get(259, 1), values.get(277, 1)
    one_page = 330 not in values  # SubIFDs
    cheap = compression in _CHEAP_COMPRESSIONS and samples <= 4 and pieces <= _MAX_STEPS and one_page
    width, height = max(values[256], values.get(322, 0)), max(values[257], values.get(323, 0))  # or those of a tile
    return width, height, _OTHER_FORMATS if cheap else math.inf


_FORMATS: dict[bytes, Callable[[Encoded], _Size]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
