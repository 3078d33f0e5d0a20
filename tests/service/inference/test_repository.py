from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import StartupError, Unavailable
from service.inference.repository import list_repository
from service.inference.traffic import Traffic, write_traffic


def complete(*versions: Path) -> None:
    for version in versions:
        version.mkdir(parents=True)
        (version / "manifest.json").touch()


@pytest.mark.parametrize("name", ["lost+found", "my model", "modèle", "-x", "_x", "a\nb", "a?b", "é", "\udcff"])
def test_a_folder_without_a_model_s_name_is_left_out(tmp_path: Path, name: str) -> None:
    complete(tmp_path / name / "1", tmp_path / "ab-c_D.2" / "1")
    listing = list_repository(tmp_path)
    assert [*listing.versions] == ["ab-c_D.2"]
    (told,) = listing.left_out
    assert told.startswith(f"left out {str(tmp_path / name)!r}: a name here must be letters")


@pytest.mark.parametrize("name", ["0", "01", "-1", "+1", "1.0", "1 ", "v1", "1_0", "١", "²", "latest"])  # noqa: RUF001 - a digit one of Arabic
def test_a_folder_without_a_version_s_name_is_left_out(tmp_path: Path, name: str) -> None:
    complete(tmp_path / "m" / name, tmp_path / "m" / "1")
    listing = list_repository(tmp_path)
    assert [*listing.versions["m"]] == [1]
    (told,) = listing.left_out
    assert told.startswith(f"left out {str(tmp_path / 'm' / name)!r}: a name here must be a positive integer")


def test_a_version_may_have_any_positive_number(tmp_path: Path) -> None:
    numbers = [2, 10, 18446744073709551617, 10**254]
    complete(*(tmp_path / "m" / str(number) for number in numbers))
    assert sorted(list_repository(tmp_path).versions["m"]) == numbers


def test_what_an_export_or_kubernetes_hides_is_left_out_silently(tmp_path: Path) -> None:
    complete(tmp_path / "xception" / ".1.partial", tmp_path / "..data" / "1")
    (tmp_path / "README.md").touch()
    (tmp_path / "xception" / "traffic.json").write_text("{}")
    listing = list_repository(tmp_path)
    assert listing.versions == {"xception": {}}
    assert listing.left_out == []


def test_links_are_followed(tmp_path: Path) -> None:
    complete(tmp_path / "store" / "a")
    models = tmp_path / "models"
    models.mkdir()
    (models / "xception").symlink_to("../store")
    (tmp_path / "store" / "1").symlink_to("a")
    assert [*list_repository(models).versions["xception"]] == [1]


def test_a_version_without_a_manifest_is_not_complete_yet(tmp_path: Path) -> None:
    complete(tmp_path / "m" / "1")
    (tmp_path / "m" / "2").mkdir()
    listing = list_repository(tmp_path)
    assert [*listing.versions["m"]] == [1]
    assert listing.left_out == [f"left out {str(tmp_path / 'm' / '2')!r}: it has no manifest.json yet"]


def test_a_version_that_can_not_be_read_is_no_incomplete_one(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1").touch()
    (tmp_path / "m" / "2").symlink_to("nowhere")
    (tmp_path / "m" / "3").symlink_to("3")
    assert sorted(list_repository(tmp_path).versions["m"]) == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda version: (version / "golden" / "0.jpg").write_bytes(b"longer"),
        lambda version: (version / "golden" / "1.jpg").touch(),
        lambda version: (version / "manifest.json").rename(version / "other.json"),
        lambda version: os.utime(version / "manifest.json", (0, 0)),
        lambda version: (version / "golden" / "0.jpg").unlink(),
    ],
)
def test_a_change_of_any_file_shows(tmp_path: Path, change: Callable[[Path], object]) -> None:
    version = tmp_path / "m" / "1"
    complete(version)
    (version / "golden").mkdir()
    (version / "golden" / "0.jpg").touch()
    before = list_repository(tmp_path).versions
    assert list_repository(tmp_path).versions == before
    change(version)
    assert list_repository(tmp_path).versions != before


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.touch(), "Not a directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
)
def test_a_repository_that_can_not_be_read_is_not_empty(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "models"
    assert callable(make)
    make(path)
    with pytest.raises(StartupError, match=f"can't read the model repository {path}: {reason}"):
        list_repository(path)


def test_a_model_that_can_not_be_read_is_not_empty(tmp_path: Path) -> None:
    complete(tmp_path / "right" / "1")
    (tmp_path / "wrong").symlink_to("nowhere")
    listing = list_repository(tmp_path)
    assert [*listing.versions] == ["right"]
    assert listing.unreadable == {"wrong": f"can't read {tmp_path / 'wrong'}: No such file or directory"}


def test_what_may_not_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")  # root, who may run these tests, may read anything

    complete(tmp_path / "xception" / "1")
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(StartupError, match=r"can't read the model repository .*: Permission denied"):
        list_repository(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"stabel": 1}', "stabel: Extra inputs"),
        ('{"stable": 0}', "stable: Input should be greater than or equal to 1"),
        ('{"canary": 2, "canary_share": 1.5}', "canary_share: Input should be less than or equal to 1"),
        ('{"canary_share": 0.5}', "canary_share needs a canary"),
        ('{"canary": 2, "stable": 2}', "can't be both stable and canary"),
    ],
)
def test_wrong_labels_leave_a_model_as_it_is(tmp_path: Path, content: str, reason: str) -> None:
    complete(tmp_path / "m" / "1")
    (tmp_path / "m" / "traffic.json").write_text(content)
    listing = list_repository(tmp_path)
    assert listing.versions == {}
    assert reason in listing.unreadable["m"]


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    complete(tmp_path / "m" / "1")
    traffic = Traffic(stable=1, canary=2, canary_share=0.25)
    write_traffic(tmp_path / "m", traffic)
    assert list_repository(tmp_path).traffic == {"m": traffic}
    assert list_repository(tmp_path).left_out == []


def test_labels_that_can_not_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"can't write .*/traffic.json: No such file or directory"):
        write_traffic(tmp_path / "none", Traffic())
