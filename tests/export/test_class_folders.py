from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from export.class_folders import MOST_PHOTOS, read_class_folders
from export.photos import Photo, with_labels


def fill(folder: Path, data: bytes, **counts: int) -> Path:
    for label, count in counts.items():
        (folder / label).mkdir()
        for number in range(count):
            (folder / label / f"{number:03}.jpg").write_bytes(data)
    return folder


def test_each_class_gives_as_many_photos_as_the_others(photos: list[Photo], tmp_path: Path) -> None:
    found = read_class_folders(fill(tmp_path, photos[0].data, spoon=70, cup=3, fork=70))
    assert found.classes == ("cup", "fork", "spoon")  # the order of torchvision's ImageFolder
    assert len(found.photos) == MOST_PHOTOS == 100
    assert Counter(label for _, _, label in found.photos) == {"cup": 3, "fork": 49, "spoon": 48}
    assert found.photos[0] == ("cup/000.jpg", photos[0].data, "cup")


def test_folders_become_labels(photos: list[Photo]) -> None:
    files = [Photo("0/a.jpg", photos[0].data, "0"), Photo("1/b.jpg", photos[1].data, "1")]
    assert [photo.label for photo in with_labels(files, ["0", "1"], ["fork", "spoon", "cup"])] == ["fork", "spoon"]
    with pytest.raises(ValueError, match=r"1 of 2 names mean no class: mug\."):
        with_labels(files, ["cup", "mug"], ["fork", "spoon", "cup"])


def test_a_photo_outside_of_the_folders(photos: list[Photo], tmp_path: Path) -> None:
    (fill(tmp_path, photos[0].data, cup=1) / "loose.jpg").write_bytes(photos[0].data)
    with pytest.raises(ValueError, match=r"loose\.jpg is in no class's folder; sort the photos into a folder for each"):
        read_class_folders(tmp_path)
