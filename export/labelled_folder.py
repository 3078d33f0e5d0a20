"""A folder of pictures whose true classes are known: from the names of its folders, or from a ground-truth file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from export.inputs import photo_names


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture's path in its folder, parts separated by "/", and the number of its true class."""

    name: str
    label: int


def labelled_pictures(folder: Path, labels: Sequence[str], ground_truth: Path | None = None) -> list[LabelledPicture]:
    """Return the JPEG and PNG files of a folder and its subfolders, in order of path, each with its true class.

    ``labels`` are the names of the network's classes. Without ``ground_truth``, the folder has a folder for each class.
    A class is named as ``class_numbers`` says. ``ground_truth`` is a text file. Each of its lines has a picture's name
    and its class, or each has only the class of the next picture in order of path. Spaces or commas separate both, and
    anything behind the class is ignored. Raises OSError, and ValueError that names what is wrong.
    """
    names = photo_names(folder)
    if ground_truth is not None:
        told = _read_ground_truth(ground_truth, names)
    elif loose := [name for name in names if len(name.parts) == 1]:
        raise ValueError(
            f"{folder / loose[0]} is in no class's folder; sort the pictures into folders, or pass --ground-truth"
        )
    else:
        told = [name.parts[0] for name in names]
    numbers = class_numbers(set(told), labels)
    return [LabelledPicture(name.as_posix(), numbers[text]) for name, text in zip(names, told, strict=True)]


def class_numbers(names: Collection[str], labels: Sequence[str]) -> dict[str, int]:
    """Return the number of the class that each name means. All names must be of one kind.

    A name is a label that no other class has, or else a WordNet id such as n01440764 if the network has ImageNet's
    1,000 classes, or else the class's place among the labels, counted from 0. Raises ValueError that shows the names
    and the labels.
    """
    kinds = [_by_label(labels), _by_wordnet_id() if len(labels) == 1000 else {}, _by_number(len(labels))]
    best = max(kinds, key=lambda kind: sum(name in kind for name in names))
    if unknown := sorted(name for name in names if name not in best):
        raise ValueError(
            f"{len(unknown)} of {len(names)} names mean no class: {_some(unknown)}. A name must be the label of one "
            f"class only ({_some(labels)}), an ImageNet WordNet id, or a number from 0 to {len(labels) - 1}"
        )
    return {name: best[name] for name in names}


def _by_label(labels: Sequence[str]) -> dict[str, int]:
    uses = Counter(labels)  # ImageNet has two classes "crane"
    return {label: number for number, label in enumerate(labels) if uses[label] == 1}


def _by_wordnet_id() -> dict[str, int]:
    """ILSVRC-2012's WordNet ids. Their sorted order is the order of classes in published heads.

    The ids are the file imagenet_synsets.txt of timm 1.0.31 (Apache-2.0).
    """
    ids = Path(__file__).with_name("imagenet_synsets.txt").read_text(encoding="ascii").split()
    return {wordnet_id: number for number, wordnet_id in enumerate(ids)}


def _by_number(count: int) -> dict[str, int]:
    """Numbers with leading zeros or without: 7, 07, 007."""
    return {f"{number:0{width}}": number for number in range(count) for width in range(1, 6)}


def _read_ground_truth(path: Path, names: Sequence[PurePath]) -> list[str]:
    rows = [re.split(r"[\s,]+", line.strip()) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    rows = [row for row in rows if row != [""]]
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(names):
            raise ValueError(f"{path} has {len(rows)} classes for {len(names)} pictures")
        return [row[0] for row in rows]
    told = {PurePath(row[0]).stem: row[1] for row in rows if len(row) > 1}
    if twice := [stem for stem, uses in Counter(name.stem for name in names).items() if uses > 1]:
        raise ValueError(f"{len(twice)} names belong to several pictures: {_some(twice)}; a name must mean one picture")
    if missing := [str(name) for name in names if name.stem not in told]:
        raise ValueError(f"{path} has no class for {len(missing)} of {len(names)} pictures: {_some(missing)}")
    return [told[name.stem] for name in names]


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")
