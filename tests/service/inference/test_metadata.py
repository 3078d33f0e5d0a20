"""Nothing that only metadata holds refuses a picture, and damaged pixels are never read."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidImage
from service.inference.formats import bare
from tests.service.inference.pictures import Pixels, encoded, photo_like, pixels_of

PHOTO = photo_like()
BROKEN_EXIF = [
    b"",
    b"garbage",
    b"MM\0*\0\0\0\x08\0\x02\1\x12\0\3",
    b"II*\0\xff\xff\xff\xff",
    b"II+\0\x08\0\0\0" + b"\xff" * 8,
]
TURNED = Image.Exif()
TURNED[0x0112] = 6
TURNED[0x010F] = "maker"  # AVIF has the orientation elsewhere, and would have no EXIF


def turned(kind: str) -> bytes:
    """The photo, stored on its side."""
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    return encoded(PHOTO.transpose(Image.Transpose.ROTATE_90), kind, exif=TURNED, **options)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_chunks(png: bytes, chunks: bytes, *, after_pixels: bool = False) -> bytes:
    at = len(png) - 12 if after_pixels else 33
    return png[:at] + chunks + png[at:]


def assert_photo(data: bytes, mean: float = 0) -> None:
    assert np.abs(pixels_of(data).astype(int) - np.asarray(PHOTO)).mean() <= mean


@pytest.fixture(scope="module")
def png() -> bytes:
    return encoded(PHOTO, "PNG")


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encoded(PHOTO, "JPEG", quality=95)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_is_kept(kind: str) -> None:
    assert_photo(turned(kind), mean=15 if kind in ("JPEG", "AVIF") else 0)


@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif(png: bytes, jpeg: bytes, exif: bytes) -> None:
    assert_photo(with_chunks(png, chunk(b"eXIf", exif)))
    assert_photo(with_chunks(png, chunk(b"eXIf", exif), after_pixels=True))
    assert np.array_equal(pixels_of(jpeg[:2] + segment(0xE1, b"Exif\0\0" + exif) + jpeg[2:]), pixels_of(jpeg))
    assert_photo(encoded(PHOTO, "WEBP", lossless=True, exif=exif or b"x"))


def test_broken_exif_in_avif() -> None:
    data = encoded(PHOTO, "AVIF", exif=TURNED)
    broken = data.replace(b"MM\0*", b"XX\0*").replace(b"II*\0", b"XX*\0")
    assert broken != data
    assert np.array_equal(pixels_of(broken), pixels_of(data))


def test_huge_metadata(png: bytes, jpeg: bytes) -> None:
    profile = bytes(3_000_000)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        pixels_of(encoded(PHOTO, kind, icc_profile=profile))
    bomb = zlib.compress(bytes(20_000_000))
    for name in (b"zTXt", b"iCCP"):
        assert_photo(with_chunks(png, chunk(name, b"a\0\0" + bomb)))
    assert_photo(with_chunks(png, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb), after_pixels=True))
    assert_photo(with_chunks(png, chunk(b"tEXt", b"a\0" + bytes(1_000_000)) * 70))
    comments = segment(0xFE, bytes(65_000)) * 200
    assert np.array_equal(pixels_of(jpeg[:2] + comments + jpeg[2:]), pixels_of(jpeg))


def test_a_bare_file_holds_no_metadata(png: bytes, jpeg: bytes) -> None:
    flooded = with_chunks(png, chunk(b"teXt", b"") * 100_000)
    assert len(bare(flooded, "PNG").data) <= len(png)
    flooded = jpeg[:2] + segment(0xE1, b"x") * 100_000 + segment(0xE2, b"MPF\0") + jpeg[2:]
    assert len(bare(flooded, "JPEG").data) == len(jpeg)
    assert np.array_equal(pixels_of(jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:]), pixels_of(jpeg))


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"gAMA", bytes(4))[:-1] + b"!",  # a wrong checksum
        chunk(b"gAMA", b"short"[:3]),
        struct.pack(">I", 1 << 30) + b"gAMA" + bytes(8),
        struct.pack(">I", 1) + b"gAMA" + bytes(8),
        chunk(b"tIME", b""),
        chunk(b"acTL", b"") + chunk(b"fcTL", bytes(26)),
    ],
)
def test_broken_chunks_of_metadata(png: bytes, broken: bytes) -> None:
    assert_photo(with_chunks(png, broken))
    assert_photo(with_chunks(png, broken, after_pixels=True))


def test_damaged_pixels_of_a_png(png: bytes) -> None:
    for at in (20, len(png) // 2, len(png) - 20):
        with pytest.raises(InvalidImage):
            pixels_of(png[:at] + bytes([png[at] ^ 4]) + png[at + 1 :])
    assert_photo(png[:-12])  # only the end marker is missing
    for end in (len(png) // 2, len(png) - 20):
        with pytest.raises(InvalidImage):
            pixels_of(png[:end])


def test_a_palette_that_is_missing() -> None:
    data = encoded(PHOTO.quantize(16), "PNG")
    start = data.index(b"PLTE") - 4
    with pytest.raises(InvalidImage, match="damaged"):
        pixels_of(data[:start] + data[start + 12 + struct.unpack_from(">I", data, start)[0] :])


def test_a_chunk_that_must_be_known(png: bytes) -> None:
    with pytest.raises(Exception, match="a chunk CgBI"):
        pixels_of(png[:8] + chunk(b"CgBI", bytes(4)) + png[8:])


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp(lossless: bool, mode: str) -> None:
    plain = encoded(PHOTO.convert(mode), "WEBP", lossless=lossless)
    full = encoded(PHOTO.convert(mode), "WEBP", lossless=lossless, icc_profile=b"x", exif=b"garbage", xmp=b"<")
    for data in (full, full[:-3]):  # the last chunk is metadata
        assert np.array_equal(pixels_of(data), pixels_of(plain))
    for end in (len(plain) // 2, len(plain) - 3):
        with pytest.raises(InvalidImage):
            pixels_of(plain[:end])


def test_comments_of_a_gif() -> None:
    whole = encoded(photo_like().convert("P"), "GIF", transparency=3)
    first = 13 + 3 * 256
    flood = b"\x21\xfe" + b"\1a" * 200_000 + b"\0" + b"\x21\xfe\1a\0" * 100_000
    np.testing.assert_array_equal(pixels_of(whole[:first] + flood + whole[first:]), pixels_of(whole))
    assert len(bare(whole[:first] + flood + whole[first:], "GIF").data) <= len(whole)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n", b"\n \n"])
def test_what_stands_before_a_picture(png: bytes, before: bytes) -> None:
    assert_photo(before + png)


def cut_short(jpeg: bytes) -> Pixels | None:
    try:
        return pixels_of(jpeg)
    except InvalidImage:
        return None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read_if_its_pixels_are_there(mode: str, progressive: bool) -> None:
    data = encoded(PHOTO.convert(mode), "JPEG", quality=90, progressive=progressive)
    whole = pixels_of(data)
    assert np.array_equal(pixels_of(data[:-2]), whole)
    assert np.array_equal(pixels_of(data[:-1]), whole)
    for cut in (*range(3, 60), 100, 300, len(data) // 2):
        for padding in (b"", bytes(1000), b"\xff" * 1000):
            found = cut_short(data[:-cut] + padding)
            assert found is None or np.array_equal(found, whole)  # a byte may hold nothing that shows


def test_a_progressive_jpeg_that_ends_between_scans_is_cut_short() -> None:
    data = encoded(PHOTO, "JPEG", quality=90, progressive=True)
    scans = data.split(b"\xff\xda")
    for count in range(1, len(scans) - 1):
        start = b"\xff\xda".join(scans[: count + 1])
        assert cut_short(start) is None
        assert cut_short(start[: start.rindex(b"\xff\xc4")]) is None


def test_a_thumbnail_does_not_end_a_jpeg(jpeg: bytes) -> None:
    thumbnail = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + encoded(PHOTO.resize((8, 8)), "JPEG")
    data = jpeg[:2] + segment(0xE1, thumbnail) + jpeg[2:]
    assert np.array_equal(pixels_of(data), pixels_of(jpeg))
    assert cut_short(data[: -len(jpeg) // 2]) is None


def test_memory_is_not_damage(png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", full)
    with pytest.raises(MemoryError):
        pixels_of(png)
    monkeypatch.undo()

    def said(*_: object) -> None:
        raise OSError("out of memory error when reading image file")

    monkeypatch.setattr(Image.Image, "load", said)
    with pytest.raises(MemoryError):
        pixels_of(png)
