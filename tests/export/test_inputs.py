from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.inputs import read_photos
from export.photos import Photo


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG whose header gives another size."""
    content = png(Image.new("RGB", (8, 8)))
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def test_photos_come_in_order_without_hidden_files(photos: list[Photo], tmp_path: Path) -> None:
    jpeg, small = photos[0].data, png(Image.new("RGBA", (8, 8)))
    for name, content in {
        "b.JPG": jpeg,
        "a/c.png": small,
        "a/._c.png": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
        "__MACOSX/._b.JPG": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
        ".thumbnails/b.jpg": jpeg,
        "notes.txt": b"no photo",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    assert read_photos(tmp_path) == [small, jpeg]


def test_a_hidden_folder_above_the_photos_does_not_hide_them(photos: list[Photo], tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.jpg").write_bytes(photos[0].data)
    assert read_photos(tmp_path / ".cache") == [photos[0].data]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.jpg", b"", "cannot identify image file"),
        ("page.jpg", b"<!doctype html><title>404</title>", "cannot identify image file"),
        ("tall.png", png_that_claims(1, 50_000_000), "1x50000000 pixels are too many"),
        ("bomb.png", png_that_claims(9_000, 9_000), "9000x9000 pixels are too many"),
        ("bomb.png", png_that_claims(10_000, 10_000), "(exceeds limit|pixels are too many)"),
        ("bomb.png", png_that_claims(50_000, 50_000), "(exceeds limit|pixels are too many)"),
        ("cut.png", png(Image.effect_noise((300, 300), 90))[:20_000], "truncated"),
        ("deep.png", png(Image.fromarray(np.full((8, 8), 40_000, np.uint16))), "more than 8 bits a channel"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else None,
)
def test_a_photo_that_can_not_be_used_is_named(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"/{name} is no photo that can be used: .*{told}"):
        read_photos(tmp_path)


def test_a_cut_jpeg_is_named(photos: list[Photo], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(photos[0].data[:-20_000])
    with pytest.raises(ValueError, match=r"/cut\.jpg is no photo that can be used: .*truncated"):
        read_photos(tmp_path)


def test_a_folder_without_photos(tmp_path: Path) -> None:
    (tmp_path / "._a.jpg").write_bytes(b"\x00\x05\x16\x07")
    with pytest.raises(ValueError, match=r"there is no \.jpg, \.jpeg or \.png in"):
        read_photos(tmp_path)
    with pytest.raises(ValueError, match=r"/missing is not a folder"):
        read_photos(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"/\._a\.jpg is not a folder"):
        read_photos(tmp_path / "._a.jpg")
