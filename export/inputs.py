"""The files that a user hands the export besides weights. Reading them takes moments and does not need torch."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from PIL import Image

# Limits of a photo: the service's default, and the largest side that a JPEG can have.
MAX_PIXELS, MAX_SIDE = 50_000_000, 65_535

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
# Control characters come from a binary file, UTF-16 or a table. A byte order mark inside comes from joined files.
_STRAY = re.compile("[\x00-\x1f\x7f-\x9f\ufeff]")


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in ``path``: UTF-8, with or without a byte order mark, one name a line.

    Spaces round a name are no part of it. Raises OSError, and ValueError that names the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it so") from error
    labels = []
    for number, line in enumerate(lines, start=1):
        label = line.strip()
        if not label:
            raise ValueError(f"{path}, line {number} is empty; each line must name a class")
        if stray := _STRAY.search(label):
            raise ValueError(f"{path}, line {number} contains the character {stray[0]!r}; save the names as UTF-8 text")
        labels.append(label)  # the same name may come twice: ImageNet has two classes "crane"
    if len(labels) < 2:
        raise ValueError(f"{path} must name at least 2 classes, not {len(labels)}")
    return tuple(labels)


def read_photos(folder: Path) -> list[bytes]:
    """Return the JPEG and PNG files of a folder and its subfolders, in order of path.

    Hidden files and folders are left out: macOS writes a ``._photo.jpg`` that is no photo beside a ``photo.jpg``.
    Raises OSError, and ValueError that names the file, for a photo that cannot be decoded, has more than 8 bits a
    channel or is too large. Raises ValueError for a folder without photos.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    inside = (path.relative_to(folder) for path in folder.rglob("*"))
    names = sorted(name for name in inside if not any(part.startswith(".") for part in name.parts))
    paths = [folder / name for name in names if name.suffix.lower() in _PHOTO_SUFFIXES]
    photos = [_read_photo(path) for path in paths if not path.is_dir()]
    if not photos:
        raise ValueError(f"there is no .jpg, .jpeg or .png in {folder}")
    return photos


def _read_photo(path: Path) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):  # Pillow would clip the values, which leaves a white picture
                raise ValueError("it has more than 8 bits a channel")
            image.draft("RGB", (1, 1))  # damage shows in a JPEG that is decoded at an eighth of its size, too
            image.load()
    except Exception as error:  # each of Pillow's parsers raises what it likes on a damaged file
        raise ValueError(f"{path} is no photo to calibrate with: {error}") from error
    return path.read_bytes()
