"""Which format a file has, by how it begins, and what of the file its pixels need."""

import re
from collections.abc import Sequence

from service.errors import InvalidImage, UnsupportedType
from service.inference.formats import avif, bmp, gif, jpeg, png, tiff, webp
from service.inference.formats.stored import Stored

_BOX = rb"....ftyp(?:....){0,60}?"  # ISO's files of boxes name the standards that they follow

_READ = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\0(?!.{4}CR)|MM\0\*",
    "AVIF": _BOX + rb"avi[fs]",
}
_NOT_READ = {
    "HEIC": _BOX + rb"(?:hei|hev|mif1|msf1)",
    "a camera's raw file": rb"FUJIFILMCCD-RAW|II(?:\*\0....CR|R[OS]|U\0)|MMOR|FOVb|....ftypcrx",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ",
    "a big-endian BigTIFF": rb"MM\0\+",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XR": rb"II\xbc",
    "PSD": rb"8BPS",
    "PDF": rb"%PDF",
    "PostScript": rb"%!PS",
    "HTML": rb"(?i)<(?:!doctype )?html",
    "SVG": rb"(?i)<(?:[?!].{0,4000}?<)?svg\b",
    "ICO": rb"\0\0[\x01\x02]\0",
    "ICNS": rb"icns",
    "PNM": rb"P[1-7]\s",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?RADIANCE",
    "DDS": rb"DDS ",
    "QOI": rb"qoif",
    "FITS": rb"SIMPLE  =",
    "MNG": rb"\x8aMNG",
    "ZIP": rb"PK\x03\x04",
    "GZIP": rb"\x1f\x8b",
}
_SIGNATURES = {name: re.compile(signature, re.DOTALL) for name, signature in (_READ | _NOT_READ).items()}
_BARE = {
    "JPEG": jpeg.bare,
    "PNG": png.bare,
    "WEBP": webp.bare,
    "GIF": gif.bare,
    "BMP": bmp.bare,
    "TIFF": tiff.bare,
    "AVIF": avif.bare,
}

FORMATS = tuple(_READ)


def format_of(data: bytes, formats: Sequence[str]) -> str:
    """Return the one of ``formats`` that ``data`` has.

    Raises UnsupportedType for a file of another known kind, whose name it says, and InvalidImage for all else.
    """
    name = next((name for name, signature in _SIGNATURES.items() if signature.match(data)), None)
    if name is None:
        raise InvalidImage(f"not an image of a known format ({', '.join(formats)})")
    if name not in formats:
        raise UnsupportedType(f"this is {name}, which is not read: send {', '.join(formats)}")
    return name


def is_picture(start: bytes) -> bool:
    """Tell whether a file that begins with ``start`` has a format that is read."""
    return any(_SIGNATURES[name].match(start) for name in _READ)


def bare(data: bytes, name: str) -> Stored:
    """Return the picture in a file of format ``name`` without metadata."""
    return _BARE[name](data)
