"""TIFFs that tifffile wrote give their pixels, or are refused by name where their colours are not surely known."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.errors import ImageTooLarge, InvalidImage, UnsupportedType
from tests.service.inference.pictures import (
    ALPHA,
    RAMP,
    RGB,
    SIDE,
    assert_shows,
    encoded,
    over_white,
    photo_like,
    pixels_of,
    scaled,
)


def written(samples: NDArray[Any], photometric: str, **options: Any) -> bytes:
    if options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, -1, 0)
    file = io.BytesIO()
    tifffile.imwrite(file, np.ascontiguousarray(samples), metadata=None, photometric=photometric, **options)
    return file.getvalue()


layouts = pytest.mark.parametrize(
    "layout",
    [
        {"byteorder": order, "compression": compression, "tile": tile}
        for order in "<>"
        for compression in (None, "zlib", "lzw")
        for tile in (None, (32, 32))
    ],
    ids=str,
)


@layouts
@pytest.mark.parametrize("bits", [8, 16])
def test_unsigned_samples_are_read(bits: int, layout: dict[str, Any]) -> None:
    assert_shows(written(scaled(RAMP, bits), "minisblack", **layout), RAMP)
    inks = np.concatenate([RGB, ALPHA[..., None]], axis=-1)
    for planes in ("contig", "separate"):
        assert_shows(written(scaled(RGB, bits), "rgb", planarconfig=planes, **layout), RGB)
        data = written(scaled(inks, bits), "separated", planarconfig=planes, **layout)
        assert_shows(data, (1 - RGB) * (1 - ALPHA[..., None]))
        for kind, colours in (("assocalpha", RGB * ALPHA[..., None]), ("unassalpha", RGB)):
            samples = scaled(np.concatenate([colours, ALPHA[..., None]], axis=-1), bits)
            data = written(samples, "rgb", planarconfig=planes, extrasamples=[kind], **layout)
            assert_shows(data, over_white(RGB, ALPHA))


@layouts
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
def test_whatever_is_read_is_read_right(photometric: str, kind: str, layout: dict[str, Any]) -> None:
    """Signed samples are read nowhere: nothing says which of their values is white."""
    colours = RGB if photometric == "rgb" else RAMP
    samples = scaled(colours, 8 * int(kind[1])) if kind[0] == "u" else (colours * 100).astype(kind)
    if kind[0] == "f":
        samples = colours.astype(kind)
    data = written(samples, photometric, **layout)
    try:
        assert_shows(data, 1 - colours if photometric == "miniswhite" else colours)
        assert kind[0] != "i"
    except UnsupportedType as error:
        assert f"a TIFF of {samples.itemsize * 8} bits a sample" in str(error)  # noqa: PT017 - either outcome is right
        assert kind not in ("u1", "u2") or (photometric, layout["byteorder"]) == ("miniswhite", ">")


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
@pytest.mark.parametrize("order", "<>")
def test_packed_samples(bits: int, order: str) -> None:
    samples = scaled(RAMP, bits)
    data = written(samples.astype(bool) if bits == 1 else samples, "minisblack", bitspersample=bits, byteorder=order)
    if (bits, order) == (12, ">"):
        with pytest.raises(UnsupportedType, match="a TIFF of 12 bits a sample"):
            pixels_of(data)
    else:
        assert_shows(data, samples / (2**bits - 1))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_deep_greys_of_little_endian_files(photometric: str) -> None:
    wanted = 1 - RAMP if photometric == "miniswhite" else RAMP
    assert_shows(written(scaled(RAMP, 16), photometric), wanted)
    assert_shows(written(RAMP.astype(np.float32), photometric), wanted)
    assert_shows(written(scaled(RAMP, 32), "minisblack"), RAMP)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.inf, np.nan])
def test_floats_that_are_not_from_0_to_1_have_no_known_white(value: float) -> None:
    samples = RAMP.astype(np.float32)
    samples[3, 5] = value
    with pytest.raises(UnsupportedType, match="float samples that are not all from 0 to 1"):
        pixels_of(written(samples, "minisblack"))


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_grey_with_alpha(kind: str, planes: str) -> None:
    samples = scaled(np.stack([RAMP * (ALPHA if kind == "assocalpha" else 1), ALPHA], axis=-1), 8)
    data = written(samples, "minisblack", planarconfig=planes, extrasamples=[kind])
    if planes == "separate":
        with pytest.raises(UnsupportedType):
            pixels_of(data)
    else:
        assert_shows(data, over_white(RAMP, ALPHA))


def test_a_palette() -> None:
    palette = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    index = scaled(RAMP, 8)
    assert_shows(written(index, "palette", colormap=palette), np.moveaxis(palette[:, index], 0, -1) / 65535)


def test_a_palette_of_8_bits_would_be_black() -> None:
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    with pytest.raises(UnsupportedType):
        pixels_of(written(scaled(RAMP, 8), "palette", colormap=palette))


def test_lab() -> None:
    lightness = np.stack([scaled(RAMP, 8), *np.zeros((2, SIDE, SIDE), np.uint8)], axis=-1)
    luminance = np.where(RAMP > 0.08, ((RAMP * 100 + 16) / 116) ** 3, RAMP * 100 / 903.3)
    srgb = np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)
    assert_shows(written(lightness, "cielab"), srgb, levels=3)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_inside(subsampling: tuple[int, int]) -> None:
    data = written(np.asarray(photo_like()), "rgb", compression="jpeg", subsampling=subsampling)
    assert_shows(data, tifffile.imread(io.BytesIO(data)) / 255)


@pytest.mark.parametrize("compression", ["group3", "group4", "packbits", "tiff_lzw"])
def test_fax_of_black_and_white(compression: str) -> None:
    page = photo_like().convert("1")
    assert_shows(encoded(page, "TIFF", compression=compression), np.asarray(page).astype(float))


PREVIEW, PICTURE = np.asarray(photo_like())[::-4, ::4], np.asarray(photo_like())


@pytest.mark.parametrize(
    "pages",
    [
        [(PREVIEW, {"subfiletype": 1}), (PICTURE, {})],
        [(PREVIEW, {}), (PICTURE, {})],
        [(PICTURE, {}), (PREVIEW, {"subfiletype": 1})],
        [(PICTURE, {}), (255 - PICTURE, {})],
        [(PREVIEW, {"subfiletype": 1, "subifds": 1}), (PICTURE, {})],
        [(PICTURE, {"subifds": 1}), (PREVIEW, {"subfiletype": 1})],
    ],
    ids=["preview first", "unmarked", "preview last", "two of a size", "picture is a child", "preview is a child"],
)
@pytest.mark.parametrize("big", [False, True])
def test_the_largest_page_is_the_picture(pages: list[tuple[NDArray[np.uint8], dict[str, Any]]], big: bool) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=big) as tiff:
        for page, options in pages:
            tiff.write(page, photometric="rgb", metadata=None, **options)
    assert_shows(file.getvalue(), PICTURE / 255)


def test_a_camera_s_raw_file_is_not_its_preview() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(PREVIEW, photometric="rgb", metadata=None, subfiletype=1, subifds=1)
        tiff.write(scaled(RAMP, 16), photometric="cfa", metadata=None, extratags=[(33421, "H", 2, (2, 2), True)])
    with pytest.raises(UnsupportedType, match="photometric 32803"):
        pixels_of(file.getvalue())
    with pytest.raises(UnsupportedType):
        pixels_of(written(PREVIEW, "rgb", subfiletype=1))


def test_the_page_s_own_orientation() -> None:
    data = written(np.rot90(PICTURE), "rgb", extratags=[(274, "H", 1, 6, True)])
    assert_shows(data, PICTURE / 255)


@pytest.mark.parametrize("tag", [700, 34665, 34675, 34853, 33723, 282, 37724])
def test_metadata_that_points_nowhere(tag: int) -> None:
    assert_shows(written(PICTURE, "rgb", extratags=[(tag, "I", 1, 0xFFFFFFF0, True)]), PICTURE / 255)


@pytest.mark.parametrize("big", [False, True])
def test_damaged_files_of_any_kind_are_refused_or_read(big: bool) -> None:
    """Each byte of the directory is changed in turn. Only errors for clients may come of it."""
    data = written(PICTURE, "rgb", bigtiff=big)
    start = struct.unpack_from("<Q", data, 8)[0] if big else struct.unpack_from("<I", data, 4)[0]
    for at in range(2, start + 200):
        damaged = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        try:
            pixels_of(damaged)
        except (InvalidImage, UnsupportedType, ImageTooLarge):
            continue


def test_missing_pixels() -> None:
    for compression in (None, "zlib"):
        data = written(PICTURE, "rgb", compression=compression)
        with pytest.raises((InvalidImage, UnsupportedType)):
            pixels_of(data[: len(data) // 2])
    assert Image.open(io.BytesIO(data)).size == (SIDE, SIDE)
