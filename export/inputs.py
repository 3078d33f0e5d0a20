"""The photos that a user hands the export. Reading them takes moments and does not need torch."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

# Limits of a photo: the service's default, and the largest side that a JPEG can have.
MAX_PIXELS, MAX_SIDE = 50_000_000, 65_535

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


def photo_names(folder: Path) -> list[Path]:
    """Return the paths of the JPEG and PNG files of a folder and its subfolders, relative to the folder, in order.

    Hidden files and folders are left out: macOS writes a ``._photo.jpg`` that is no photo beside a ``photo.jpg``.
    Raises ValueError if there is no such file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES)
    visible = [name for name in inside if not any(part.startswith(".") for part in name.parts)]
    names = [name for name in visible if not (folder / name).is_dir()]
    if not names:
        raise ValueError(f"there is no .jpg, .jpeg or .png in {folder}")
    return names


def open_photo(path: Path) -> Image.Image:
    """Open an image file without decoding it. The caller closes the image.

    Raises ValueError if the image has more than 8 bits a channel or is too large, and what Pillow raises otherwise.
    """
    image = Image.open(path)
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        image.close()
        raise ValueError(f"{image.width}x{image.height} pixels are too many")
    if image.mode.startswith(("I", "F")):  # Pillow would clip the values, which leaves a white picture
        image.close()
        raise ValueError("it has more than 8 bits a channel")
    return image


def read_photos(folder: Path) -> list[bytes]:
    """Return the JPEG and PNG files of a folder and its subfolders, in the order of ``photo_names``.

    Raises OSError, and ValueError that names the file, for a photo that cannot be decoded, has more than 8 bits a
    channel or is too large. Raises ValueError for a folder without photos.
    """
    return [read_photo(folder / name) for name in photo_names(folder)]


def read_photo(path: Path) -> bytes:
    """Return the content of an image file. Raises as ``read_photos`` does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = open_photo(path)
        with image:
            image.draft("RGB", (1, 1))  # damage shows in a JPEG that is decoded at an eighth of its size, too
            image.load()
    except Exception as error:  # each of Pillow's parsers raises what it likes on a damaged file
        raise ValueError(f"{path} is no photo that can be used: {error}") from error
    return path.read_bytes()
