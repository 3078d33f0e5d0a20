"""Photos of a user's own, in a folder for each class as ImageNet has them. Reading them does not need torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from export.inputs import photo_names, read_photo

MOST_PHOTOS = 100  # a proof of the export; python -m export evaluate measures on all photos


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """The names of the folders with photos in order, and photos: path in the folder, content, name of the folder."""

    classes: tuple[str, ...]
    photos: list[tuple[str, bytes, str]]


def read_class_folders(folder: Path) -> ClassFolders:
    """Return the classes in ``folder`` and at most ``MOST_PHOTOS`` photos, in turn from each class.

    Raises what ``read_photos`` raises, and ValueError for a photo outside of the classes' folders, for a folder without
    photos, and for less than two folders.
    """
    names = photo_names(folder)
    if loose := [name for name in names if len(name.parts) == 1]:
        raise ValueError(f"{folder / loose[0]} is in no class's folder; sort the photos into a folder for each class")
    by_class = {label: list(group) for label, group in itertools.groupby(names, key=lambda name: name.parts[0])}
    folders = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if empty := sorted(folders - by_class.keys()):
        raise ValueError(f"there is no photo in {folder / empty[0]}; each class needs one")
    in_turn = [name for names in itertools.zip_longest(*by_class.values()) for name in names if name is not None]
    photos = [(name.as_posix(), read_photo(folder / name), name.parts[0]) for name in in_turn[:MOST_PHOTOS]]
    if len(by_class) < 2:
        raise ValueError(f"{folder} must have a folder for each of at least 2 classes, not {len(by_class)}")
    return ClassFolders(tuple(by_class), photos)
