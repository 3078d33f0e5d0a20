"""Damaged pictures of every format: each is a picture or a fault of the picture, and its decoder lives on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge, InvalidImage, UnsupportedType
from service.inference.decoder_process import How
from service.inference.decoders import Decoders
from service.inference.image import Preprocessing
from service.settings import ModelSettings
from tests.service.inference.pictures import encoded, photo_like

pytestmark = pytest.mark.fuzz

HOW = How(Preprocessing(1.0, "squash", "bilinear"), 50_000_000, fast=True)
PALETTE = photo_like().convert("P")
WHOLE = [
    encoded(photo_like(), "JPEG"),
    encoded(photo_like(), "JPEG", progressive=True, comment=b"words"),
    encoded(photo_like().convert("CMYK"), "JPEG"),
    encoded(photo_like(), "PNG"),
    encoded(PALETTE, "PNG", transparency=3),
    encoded(photo_like().convert("I;16"), "PNG"),
    encoded(photo_like(), "WEBP"),
    encoded(photo_like(), "WEBP", lossless=True),
    encoded(PALETTE, "GIF", transparency=3),
    encoded(photo_like(), "BMP"),
    encoded(PALETTE, "BMP"),
    *(encoded(photo_like(), "TIFF", compression=kind) for kind in (None, "tiff_lzw", "jpeg", "tiff_adobe_deflate")),
    encoded(photo_like(), "AVIF"),
]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    started = Decoders(ModelSettings(decoders=1))
    started.start()
    yield started
    started.close()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Change a few bytes of a picture, most often of its head, and perhaps cut it, or repeat or insert a piece."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, 120) | st.integers(0, len(data) - 1)) % len(data)
        data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 64))
    match draw(st.sampled_from(("whole", "cut", "repeat", "insert"))):
        case "cut":
            del data[at : at + draw(st.sampled_from((length, len(data))))]
        case "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 50))
        case "insert":
            data[at:at] = draw(st.binary(max_size=64))
    return bytes(data)


@given(damaged())
def test_a_damaged_picture_is_a_picture_or_its_own_fault(decoders: Decoders, data: bytes) -> None:
    ended = decoders.ordinary.ended + decoders.unusual.ended
    out = np.zeros((64, 64, 3), np.uint8)
    try:
        with decoders.admit(data) as pool:
            pool.decode(data, HOW, time.monotonic() + 20, out)
    except (InvalidImage, UnsupportedType, ImageTooLarge):
        pass
    assert decoders.ordinary.ended + decoders.unusual.ended == ended
