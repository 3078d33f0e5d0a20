"""Files of kinds that are not read are refused by name."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from service.errors import InvalidImage, UnsupportedType
from service.inference.formats import FORMATS
from service.settings import Settings
from tests.service.inference.pictures import encoded, photo_like, pixels_of

PIXELS = np.asarray(photo_like())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's raw file"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "a video"),
        (imagecodecs.jpegxl_encode(PIXELS), "JPEG XL"),
        (imagecodecs.jpeg2k_encode(PIXELS), "JPEG 2000"),
        (imagecodecs.jpegxr_encode(PIXELS), "JPEG XR"),
        (imagecodecs.jpegls_encode(PIXELS), "a JPEG of 3 components of 8 bits"),
        (imagecodecs.jpeg8_encode(PIXELS.astype(np.uint16), bitspersample=12), "a JPEG of 3 components of 12 bits"),
        (imagecodecs.qoi_encode(PIXELS), "QOI"),
        (encoded(photo_like(), "ICO"), "ICO"),
        (encoded(photo_like(), "PDF"), "PDF"),
        (encoded(photo_like(), "PPM"), "PNM"),
        (b"8BPS\0\1", "PSD"),
        (b'<svg width="1">', "SVG"),
        (b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg:svg>'.replace(b"svg:svg", b"svg"), "SVG"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html><svg>", "HTML"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_known_kind_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedType, match=f"this is {name}"):
        pixels_of(data)


@pytest.mark.parametrize("data", [b"", b"\r\n", b"hello", b"\0" * 100, b"<" * 100_000, b"\0\0\0\x18ftyp"[:6]])
def test_what_is_of_no_known_kind(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="not an image of a known format"):
        pixels_of(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_can_be_turned_off(kind: str) -> None:
    data = encoded(photo_like(), kind)
    pixels_of(data, formats=[kind])
    others = [name for name in FORMATS if name != kind]
    with pytest.raises(UnsupportedType, match=f"this is {kind}, which is not read: send {', '.join(others)}"):
        pixels_of(data, formats=others)


def test_all_formats_are_on_unless_set() -> None:
    assert tuple(Settings().formats.split(",")) == FORMATS
