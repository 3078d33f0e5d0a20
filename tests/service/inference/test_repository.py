from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import InvalidManifest, StartupError
from service.inference.repository import model_folders, version_folders


def complete(*versions: Path) -> None:
    for version in versions:
        version.mkdir(parents=True)
        (version / "manifest.json").touch()


@pytest.mark.parametrize("name", ["lost+found", "my model", "modèle", "-x", "_x", "a\nb", "a?b", "é", "\udcff"])
def test_a_folder_without_a_model_s_name_is_left_out(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    complete(tmp_path / name / "1", tmp_path / "ab-c_D.2" / "1")
    assert model_folders(tmp_path) == [tmp_path / "ab-c_D.2"]
    assert f"left out {str(tmp_path / name)!r}: a name here must be letters" in caplog.text


@pytest.mark.parametrize("name", ["0", "01", "-1", "+1", "1.0", "1 ", "v1", "1_0", "١", "²", "latest"])  # noqa: RUF001 - a digit one of Arabic
def test_a_folder_without_a_version_s_name_is_left_out(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    complete(tmp_path / name, tmp_path / "1")
    assert version_folders(tmp_path) == [tmp_path / "1"]
    assert f"left out {str(tmp_path / name)!r}: a name here must be a positive integer" in caplog.text


def test_versions_are_in_order_of_number_however_large(tmp_path: Path) -> None:
    names = ["2", "10", "18446744073709551617", "9" * 255]
    complete(*(tmp_path / name for name in reversed(names)))
    assert [folder.name for folder in version_folders(tmp_path)] == names


def test_what_an_export_or_kubernetes_hides_is_left_out_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complete(tmp_path / "xception" / ".1.partial", tmp_path / "..data" / "1")
    (tmp_path / "README.md").touch()
    assert model_folders(tmp_path) == [tmp_path / "xception"]
    assert version_folders(tmp_path / "xception") == []
    assert caplog.text == ""


def test_links_are_followed(tmp_path: Path) -> None:
    complete(tmp_path / "store" / "a")
    models = tmp_path / "models"
    models.mkdir()
    (models / "xception").symlink_to("../store")
    (tmp_path / "store" / "1").symlink_to("a")
    assert model_folders(models) == [models / "xception"]
    assert version_folders(models / "xception") == [models / "xception" / "1"]


def test_a_version_without_a_manifest_is_not_complete_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    complete(tmp_path / "1")
    (tmp_path / "2").mkdir()
    assert version_folders(tmp_path) == [tmp_path / "1"]
    assert f"left out {tmp_path / '2'}: it has no manifest.json yet" in caplog.text


def test_a_version_that_can_not_be_read_is_no_incomplete_one(tmp_path: Path) -> None:
    (tmp_path / "1").touch()
    (tmp_path / "2").symlink_to("nowhere")
    (tmp_path / "3").symlink_to("3")
    assert [folder.name for folder in version_folders(tmp_path)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.touch(), "Not a directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
)
def test_what_can_not_be_read_is_not_empty(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "models"
    assert callable(make)
    make(path)
    with pytest.raises(StartupError, match=f"can't read the model repository {path}: {reason}"):
        model_folders(path)
    with pytest.raises(InvalidManifest, match=f"can't read {path}: {reason}"):
        version_folders(path)


def test_what_may_not_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")  # root, who may run these tests, may read anything

    complete(tmp_path / "xception" / "1")
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(StartupError, match=r"can't read the model repository .*: Permission denied"):
        model_folders(tmp_path)
    with pytest.raises(InvalidManifest, match=r"can't read .*/xception: Permission denied"):
        version_folders(tmp_path / "xception")
