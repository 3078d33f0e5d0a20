"""Pictures whose decoding takes far more than their size or their sides tell, and what a server answers to each."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image


def _saved(size: tuple[int, int], kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, *, extra: bytes = b"", depth: int = 8) -> bytes:
    """Return a grey PNG of zeros. ``extra`` stands before its pixels."""
    packed = zlib.compressobj(9)
    rows = [packed.compress(bytes((1 + width * depth // 8) * 100)) for _ in range(-(-height // 100))]
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", b"".join(rows) + packed.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def jpeg_with(segments: bytes) -> bytes:
    """Return a small JPEG with more between its first marker and the rest."""
    whole = _saved((64, 64), "JPEG")
    return whole[:2] + segments + whole[2:]


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG that says the last of its scans again and again."""
    whole = _saved((side, side), "JPEG", progressive=True, quality=5)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def bmp_of_runs(width: int, height: int) -> bytes:
    """Return a BMP whose run lengths jump over nearly all of its pixels."""
    runs = b"\0\2\xff\xff" * 8 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + header + bytes(1024) + runs


def gif_with(extensions: bytes) -> bytes:
    """Return a small GIF with more before its frame."""
    whole = _saved((64, 64), "GIF")
    at = 13 + (3 << (whole[10] & 7) + 1)
    return whole[:at] + extensions + whole[at:]


def tiff(*tags: tuple[int, int], data: bytes = b"") -> bytes:
    """Return a grey TIFF of one page with these tags, a number each. ``data`` follows the directory."""
    known = {258: 8, 259: 8, 262: 1, 277: 1} | dict(tags)
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(known.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + data


def tiff_of_strips(count: int) -> bytes:
    """Return a TIFF of so many strips of one row each."""
    tags = [(256, 1, 16), (257, 1, count), (258, 1, 8), (259, 1, 1), (262, 1, 1), (277, 1, 1), (278, 1, 1)]
    table = 8 + 2 + 12 * 9 + 4
    tags += [(273, count, table), (279, count, table)]
    entries = [struct.pack("<HHII", tag, 4, *rest) for tag, *rest in sorted(tags)]
    return b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(entries) + bytes(4) + struct.pack("<I", 16) * count


# Each is at most 20 MB. The numbers are the statuses that a server may answer; 504 when its deadline is short.
BOMBS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "a column of 50 million pixels": (lambda: png(1, 50_000_000), (413,)),
    "a row of 60,000 pixels": (lambda: png(60_000, 800), (200, 504)),
    "49 million pixels of 16 bits": (lambda: png(7000, 7000, depth=16), (200, 504)),
    "PNG chunks": (lambda: png(64, 64, extra=chunk(b"tEXt", b"") * 1_600_000), (200, 504)),
    "PNG pixels in empty pieces": (lambda: png(64, 64, extra=chunk(b"IDAT", b"") * 1_600_000), (200, 504)),
    "JPEG segments of EXIF": (lambda: jpeg_with(b"\xff\xe1\x00\x0aExif\0\0ab" * 1_600_000), (200, 504)),
    "JPEG comments": (lambda: jpeg_with(b"\xff\xfe\x00\x02" * 4_900_000), (200, 504)),
    "JPEG fill bytes": (lambda: jpeg_with(b"\xff" * 19_000_000), (200, 504)),
    "400 scans": (lambda: many_scans(6000, 400), (504,)),
    "thousands of scans": (lambda: many_scans(2500, 3000), (413,)),
    "run lengths": (lambda: bmp_of_runs(65_000, 700), (200, 400, 504)),
    "a GIF comment": (lambda: gif_with(b"\x21\xfe" + b"\1a" * 9_900_000 + b"\0"), (200, 504)),
    "GIF comments": (lambda: gif_with(b"\x21\xfe\1a\0" * 3_900_000), (200, 504)),
    "a huge tile": (lambda: tiff((256, 16), (257, 16), (322, 40_000), (323, 40_000), (324, 8), (325, 9)), (413,)),
    "strips": (lambda: tiff_of_strips(2_400_000), (413,)),
    "strips of a legal height": (lambda: tiff_of_strips(65_000), (200, 400, 504)),
}
