"""PNG, GIF, BMP and JPEG give their colours, over white where they are transparent. Most are not written by Pillow."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import png
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.service.inference.pictures import SIDE, assert_shows, encoded, over_white, photo_like, pixels_of


def written(samples: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    png.Writer(SIDE, SIDE, **options).write(file, samples.reshape(SIDE, -1).tolist())
    return file.getvalue()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png(random: np.random.Generator, depth: int, interlace: bool) -> None:
    most = 2**depth - 1
    grey = random.integers(0, most + 1, (SIDE, SIDE))
    if depth == 16:
        grey = grey & 0xFF00 | grey & 1  # many share the high byte, which is all that is shown
    for key in (0, most, int(grey[0, 0])):
        data = written(grey, greyscale=True, bitdepth=depth, transparent=key, interlace=interlace)
        assert_shows(data, np.where(grey == key, 1, grey / most))


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_png(random: np.random.Generator, depth: int, interlace: bool) -> None:
    most = 2**depth - 1
    rgb = random.integers(0, most + 1, (SIDE, SIDE, 3))
    rgb[:4] = rgb[0, 0]
    rgb[1, :, 0] ^= 1  # nearly the transparent colour, and yet not transparent
    rgb[2, :, 1] ^= most // 2 + 1
    key = tuple(rgb[0, 0].tolist())
    data = written(rgb, greyscale=False, bitdepth=depth, transparent=key, interlace=interlace)
    assert_shows(data, np.where((rgb == key).all(-1, keepdims=True), 1, rgb / most))


@pytest.mark.parametrize("depth", [8, 16])
def test_the_alpha_of_a_png(random: np.random.Generator, depth: int) -> None:
    most = 2**depth - 1
    samples = random.integers(0, most + 1, (SIDE, SIDE, 4))
    rgb, alpha = samples[..., :3] / most, samples[..., 3] / most
    assert_shows(written(samples, greyscale=False, alpha=True, bitdepth=depth), over_white(rgb, alpha), levels=3)
    grey = written(samples[..., 2:], greyscale=True, alpha=True, bitdepth=depth)
    assert_shows(grey, over_white(rgb[..., 2], alpha), levels=3)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_alpha_of_a_palette(random: np.random.Generator, depth: int) -> None:
    palette = random.integers(0, 256, (2**depth, 4))
    index = random.integers(0, 2**depth, (SIDE, SIDE))
    data = written(index, palette=[tuple(colour) for colour in palette.tolist()], bitdepth=depth)
    assert_shows(data, over_white(palette[index, :3] / 255, palette[index, 3] / 255))


def test_the_transparent_grey_of_a_gif_whose_palette_is_the_grey_ramp(random: np.random.Generator) -> None:
    grey = random.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    data = encoded(Image.fromarray(grey), "GIF", transparency=5)
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert_shows(data, np.where(grey == 5, 255, grey) / 255)


def bmp(rows: NDArray[np.uint8], bits: int, palette: bytes = b"", masks: bytes = b"", colours: int = 0) -> bytes:
    """Return a BMP of ``rows``, bytes [SIDE, bytes of a row], a multiple of four; the first row is the top one."""
    header = struct.pack("<IiiHH", 108 if masks else 40, SIDE, SIDE, 1, bits)
    header += struct.pack("<IIiiII", 3 if masks else 0, rows.size, 0, 0, colours, 0) + masks
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + rows.size, 0, 0, start) + header + palette + rows[::-1].tobytes()


@pytest.mark.parametrize("alpha", [0, 7, 255])
@pytest.mark.parametrize("masked", [False, True])
def test_a_bmp_of_32_bits_is_opaque_if_all_of_its_alpha_is_zero(
    random: np.random.Generator, alpha: int, masked: bool
) -> None:
    rgb = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    rows = np.concatenate([rgb[..., ::-1], np.full((SIDE, SIDE, 1), alpha, np.uint8)], axis=-1).reshape(SIDE, -1)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52) if masked else b""
    opaque = not masked or alpha == 0
    assert_shows(bmp(rows, 32, masks=masks), over_white(rgb / 255, np.full((SIDE, SIDE), 1 if opaque else alpha / 255)))


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("grey", [False, True])
def test_a_bmp_with_a_small_palette(random: np.random.Generator, bits: int, grey: bool) -> None:
    for colours in {2, 2**bits}:
        palette = random.integers(0, 256, (colours, 3))
        if grey:
            palette[:] = (np.arange(colours) * (255 if colours == 2 else 1))[:, None]
        index = random.integers(0, colours, (SIDE, SIDE))
        packed = np.unpackbits(index.astype(np.uint8)[..., None], axis=-1)[..., -bits:].reshape(SIDE, -1)
        entries = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).astype(np.uint8).tobytes()
        assert_shows(bmp(np.packbits(packed, axis=-1), bits, entries, colours=colours), palette[index] / 255)


@pytest.mark.parametrize("stored", ["rgb", "ycbcr"])
def test_a_jpeg_of_three_colours(stored: str) -> None:
    picture = np.asarray(photo_like())
    data = bytes(imagecodecs.jpeg8_encode(picture, level=98, colorspace="rgb", outcolorspace=stored, subsampling="444"))
    assert_shows(data, picture / 255, levels=12)


@pytest.mark.parametrize("stored", ["cmyk", "ycck"])
def test_a_jpeg_of_four_inks_which_adobe_stores_inverted(stored: str) -> None:
    rgb = np.asarray(photo_like())
    inverted = np.concatenate([rgb, np.full((SIDE, SIDE, 1), 200, np.uint8)], axis=-1)
    data = bytes(imagecodecs.jpeg8_encode(inverted, level=98, colorspace="cmyk", outcolorspace=stored))
    read = imagecodecs.jpeg8_decode(data, outcolorspace="cmyk") / 255
    assert_shows(data, read[..., :3] * read[..., 3:])


def test_an_avif() -> None:
    picture = np.asarray(photo_like())
    data = bytes(imagecodecs.avif_encode(picture, level=98))
    assert np.abs(pixels_of(data).astype(int) - imagecodecs.avif_decode(data)).max() <= 1
