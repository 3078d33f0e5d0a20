"""Which photos a command line names, and their bytes."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from service.errors import BodyTooLarge, InvalidImage, InvalidParameter

STDIN = "-"


def find(named: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return the paths of the photos that are named, each once, in the order of the names.

    A name is a file, a folder, a pattern such as ``*.jpg``, or ``-``. A folder means its files and then those of the
    folders in it, by name, as far as they have an extension of one of ``formats``. Raises InvalidParameter for a name
    that gives no photo.
    """
    extensions = {end for end, kind in Image.registered_extensions().items() if kind in formats}
    found: dict[str, None] = {}
    for name in named:
        paths = dict.fromkeys(_photos(name, extensions))
        if not paths:
            raise InvalidParameter(f"{name}: {_why_none(name)}")
        found |= paths
    return list(found)


def _photos(name: str, extensions: set[str]) -> Iterator[str]:
    if name == STDIN:
        if not sys.stdin.isatty():
            yield name
        return
    for path in [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 - as below
        if os.path.isdir(path):  # noqa: PTH112 - the row shows the path as it was named
            yield from _in_folder(path, extensions)
        else:
            yield path


def _in_folder(path: str, extensions: set[str]) -> Iterator[str]:
    """Yield the photos below a folder. Raises InvalidParameter for a folder that can't be read."""

    def unreadable(error: OSError) -> None:
        raise InvalidParameter(f"{error.filename}: can't read the folder: {error.strerror}")

    for folder, inner, files in os.walk(path, onerror=unreadable):
        inner.sort()
        for file in sorted(files):
            if Path(file).suffix.lower() in extensions:
                yield os.path.join(folder, file)  # noqa: PTH118 - as above


def _why_none(name: str) -> str:
    if name == STDIN:
        return "standard input is a terminal; send it a photo's bytes"
    return "no photo is in this folder" if Path(name).is_dir() else "there is no such file, and no file matches"


def read(path: str, most_bytes: int) -> bytes:
    """Return a photo's bytes. Raises InvalidImage for a file that can't be read, and BodyTooLarge."""
    try:
        with Path("/dev/stdin" if path == STDIN else path).open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InvalidImage(f"can't read the file: {error.strerror}") from None
    if len(data) > most_bytes:
        raise BodyTooLarge(f"the file has more than the {most_bytes} bytes that max_body_bytes allows")
    return data
