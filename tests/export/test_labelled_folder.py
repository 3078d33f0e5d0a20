from __future__ import annotations

from pathlib import Path

import pytest

from export.labelled_folder import LabelledPicture, class_numbers, labelled_pictures
from models.weights import imagenet_labels

KITCHEN = ("cup", "fork", "glass", "knife", "plate", "spoon")


def make(folder: Path, *names: str) -> Path:
    """Empty files are enough, because only a picture's name tells its class."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    make(tmp_path, "spoon/b.JPG", "spoon/a/c.png", "cup/a.jpeg", "cup/notes.txt", "cup/._a.jpeg", ".git/a.jpg")
    assert labelled_pictures(tmp_path, KITCHEN) == [
        LabelledPicture("cup/a.jpeg", 0),
        LabelledPicture("spoon/a/c.png", 5),
        LabelledPicture("spoon/b.JPG", 5),
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["n01440764", "n02012849", "n03126707", "n15075141"], [0, 134, 517, 999]),  # both cranes
        (["tench, Tinca tinca", "goldfish, Carassius auratus"], [0, 1]),
        (["0", "00", "007", "0999"], [0, 0, 7, 999]),
    ],
)
def test_an_imagenet_class_has_three_names(names: list[str], expected: list[int]) -> None:
    assert list(class_numbers(names, imagenet_labels()).values()) == expected


def test_wordnet_ids_are_in_the_order_of_the_labels() -> None:
    """ILSVRC-2012's ids in the sorted order, which is the order of published heads."""
    by_id = {"n01440764": "tench", "n02123045": "tabby", "n02504458": "African elephant", "n07753592": "banana"}
    numbers = class_numbers(by_id, imagenet_labels())
    assert {name: imagenet_labels()[number].split(",")[0] for name, number in numbers.items()} == by_id


def test_a_label_that_looks_like_a_number_is_a_label() -> None:
    assert class_numbers(["1", "3"], ("3", "2", "1")) == {"1": 2, "3": 0}


@pytest.mark.parametrize(
    ("names", "labels", "told"),
    [
        (
            ["cup", "mug", "pan"],
            KITCHEN,
            r"2 of 3 names mean no class: mug, pan\. .* \(cup, fork, glass, knife, plate, ",
        ),
        (["cup", "1"], KITCHEN, r"1 of 2 names mean no class: 1\. "),
        (["6"], KITCHEN, "number from 0 to 5"),
        (["n01440764"], KITCHEN, "1 of 1 names mean no class: n01440764"),
        (["crane"], imagenet_labels(), "1 of 1 names mean no class: crane.* the label of one class only"),
    ],
)
def test_names_that_mean_no_class(names: list[str], labels: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        class_numbers(names, labels)


@pytest.mark.parametrize(
    "lines",
    [
        "n01440764\nn15075141\nn01443537\n",  # TF-slim
        "val_1.JPEG 0\nval_3.JPEG 1\nval_2.JPEG 999\n",  # Caffe
        "ImageId,PredictionString\nval_1,n01440764 1 2 3 4 n01440764 5 6 7 8 \nval_3,n01443537 1 2 3 4\n"
        "val_2,n15075141 1 2 3 4\nval_4,n15075141 1 2 3 4\n",  # Kaggle
    ],
)
def test_ground_truth_in_every_published_format(lines: str, tmp_path: Path) -> None:
    make(tmp_path, "val_1.JPEG", "val_2.JPEG", "val_3.JPEG")
    (tmp_path / "truth.txt").write_text(lines)
    pictures = labelled_pictures(tmp_path, imagenet_labels(), tmp_path / "truth.txt")
    assert [(picture.name, picture.label) for picture in pictures] == [
        ("val_1.JPEG", 0),
        ("val_2.JPEG", 999),
        ("val_3.JPEG", 1),
    ]


def test_numbers_of_the_development_kit_are_refused(tmp_path: Path) -> None:
    """They count from 1, in another order than the labels."""
    make(tmp_path, *(f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1000)))
    (tmp_path / "truth.txt").write_text("".join(f"{number}\n" for number in range(1, 1001)))
    with pytest.raises(ValueError, match="1 of 1000 names mean no class: 1000"):
        labelled_pictures(tmp_path, imagenet_labels(), tmp_path / "truth.txt")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("cup\n", "truth.txt has 1 classes for 2 pictures"),
        ("a.jpg cup\nc.jpg cup\n", "truth.txt has no class for 1 of 2 pictures: b.jpg"),
        ("a.jpg mug\nb.jpg cup\n", "1 of 2 names mean no class: mug"),
    ],
)
def test_ground_truth_that_does_not_fit(lines: str, told: str, tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "truth.txt").write_text(lines)
    with pytest.raises(ValueError, match=told):
        labelled_pictures(tmp_path, KITCHEN, tmp_path / "truth.txt")


def test_a_picture_outside_the_folders_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b\.jpg is in no class's folder; .* or pass --ground-truth"):
        labelled_pictures(make(tmp_path, "cup/a.jpg", "b.jpg"), KITCHEN)
