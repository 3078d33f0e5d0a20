from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.exported import read_version
from models.spec import Preprocessing


@pytest.fixture
def repository(xception: Path, tmp_path: Path) -> Path:
    """Xception as versions 2 and 10. The weights are links, because they are large and only read."""
    for version in ("2", "10"):
        folder = tmp_path / "xception" / version
        folder.mkdir(parents=True)
        for file in xception.iterdir():
            if file.suffix == ".data":
                (folder / file.name).symlink_to(file.resolve())
            elif file.is_file():
                shutil.copy(file, folder)
    (tmp_path / "xception" / ".11.partial").mkdir()
    return tmp_path


def test_the_highest_version_or_the_named_one(repository: Path) -> None:
    version = read_version(repository, "xception")
    assert (version.name, version.folder) == ("xception/10", repository / "xception" / "10")
    assert version.labels == ("cup", "fork", "glass", "knife", "plate", "spoon")
    assert version.preprocessing == Preprocessing(crop_pct=1.0, crop_mode="squash")
    assert version.precisions == ("fp32", "int8", "fp16")
    assert read_version(repository, "xception/2").name == "xception/2"


@pytest.mark.parametrize("model", ["vgg", "xception/3", "xception/02", "xception/.11.partial", ""])
def test_what_is_not_there(repository: Path, model: str) -> None:
    with pytest.raises(ValueError, match=f"there is no version of '{model}' in "):
        read_version(repository, model)


@pytest.mark.parametrize("name", ["labels.txt", "int8.onnx"])
def test_a_changed_file(repository: Path, name: str) -> None:
    with (repository / "xception" / "2" / name).open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=f"{name} is not the file that manifest.json describes"):
        read_version(repository, "xception/2")
