from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bench.bombs import BOMBS, many_scans, png, tiff
from service.errors import ImageTooLarge
from service.inference.picture_cost import is_ordinary

MAX_PIXELS = 50_000_000
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
BEGINNINGS = [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]


def saved(width: int, height: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), "blue" if mode == "RGB" else 0).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "JPEG"},
        {"kind": "JPEG", "progressive": True},
        {"kind": "JPEG", "comment": b"words", "exif": EXIF, "icc_profile": bytes(70_000)},
        {"kind": "JPEG", "mode": "L"},
        {"kind": "JPEG", "mode": "CMYK"},
        {"kind": "PNG"},
        {"kind": "PNG", "mode": "P"},
        {"kind": "WEBP"},
        {"kind": "WEBP", "lossless": True},
        {"kind": "WEBP", "exif": EXIF},
        {"kind": "GIF", "mode": "P", "comment": b"words" * 100},
        {"kind": "BMP"},
        {"kind": "TIFF"},
        {"kind": "TIFF", "compression": "tiff_lzw"},
        {"kind": "TIFF", "compression": "jpeg", "tiffinfo": {270: "words"}},
    ],
)
def test_what_people_send_is_ordinary_up_to_a_size(options: dict[str, object]) -> None:
    assert is_ordinary(saved(1024, 768, **options), MAX_PIXELS)  # type: ignore[arg-type]
    with pytest.raises(ImageTooLarge, match="the picture has 1024x768 pixels, more than the 786431 allowed"):
        is_ordinary(saved(1024, 768, **options), 1024 * 768 - 1)  # type: ignore[arg-type]


def test_every_photo_is_ordinary(kitchenware_photos: list[tuple[Path, str | None]]) -> None:
    assert all(is_ordinary(path.read_bytes(), MAX_PIXELS) for path, _ in kitchenware_photos)


def test_a_large_picture_of_a_phone_is_ordinary_and_a_larger_one_is_not() -> None:
    assert is_ordinary(saved(4032, 3024, "JPEG"), MAX_PIXELS)
    assert is_ordinary(saved(6048, 4032, "JPEG"), MAX_PIXELS)
    assert not is_ordinary(saved(8000, 6000, "JPEG"), MAX_PIXELS)
    assert not is_ordinary(saved(4032, 3024, "JPEG", progressive=True), MAX_PIXELS)
    assert is_ordinary(saved(4000, 3000, "PNG"), MAX_PIXELS)
    assert not is_ordinary(saved(4100, 3200, "PNG"), MAX_PIXELS)


def test_what_follows_a_jpeg_counts_no_scans() -> None:
    """Phones append a video, in which some bytes look like scans."""
    assert is_ordinary(saved(640, 480, "JPEG", progressive=True) + b"\xff\xda\0\0" * 1000, MAX_PIXELS)


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_is_ordinary(name: str) -> None:
    build, statuses = BOMBS[name]
    if statuses == (413,):
        with pytest.raises(ImageTooLarge):
            is_ordinary(build(), MAX_PIXELS)
    else:
        assert not is_ordinary(build(), MAX_PIXELS)


def test_what_is_absurd_is_refused() -> None:
    with pytest.raises(ImageTooLarge, match="the picture has 1x70000 pixels; a side may have at most 65535"):
        is_ordinary(png(1, 70_000), MAX_PIXELS)
    with pytest.raises(ImageTooLarge, match="the JPEG has 501 scans, more than the 500 allowed"):
        is_ordinary(many_scans(64, 501), MAX_PIXELS)
    with pytest.raises(ImageTooLarge, match="20000x16 pixels"):
        is_ordinary(tiff((256, 16), (257, 16), (322, 20_000), (323, 16), (324, 8), (325, 9)), 300_000)


@pytest.mark.parametrize("data", BEGINNINGS)
def test_what_ends_early_is_not_ordinary(data: bytes) -> None:
    assert not is_ordinary(data, MAX_PIXELS)
