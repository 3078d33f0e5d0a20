from __future__ import annotations

from pathlib import Path

import pytest

from bench import repository
from bench.repository import default_model, only, read_models
from service.errors import StartupError
from service.settings import Settings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("cup", "goldfish"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").write_bytes(label.encode())
    return tmp_path / "photos"


def test_a_photo_has_the_label_of_its_folder_where_the_model_knows_that(model_repository: Path, photos: Path) -> None:
    models = read_models(Settings(model_repository=model_repository), photos)
    assert models["xception"].photos == [(b"cup", "cup"), (b"goldfish", None)]
    assert models["inception_v4"].photos == [(b"cup", None), (b"goldfish", None)]  # random weights know no label


def test_without_photos_there_are_golden_samples(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "PHOTOS", tmp_path / "nothing")
    model = read_models(Settings(model_repository=model_repository))["xception"]
    assert [photo.label for photo in model.photos] == [golden.top_k[0]["label"] for golden in model.manifest.golden]
    assert all(photo.data.startswith(b"\xff\xd8") for photo in model.photos)


def test_photos_that_are_asked_for_must_be_there(model_repository: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="looked for as <label>"):
        read_models(Settings(model_repository=model_repository), tmp_path)


def test_each_model_is_read_in_its_highest_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("a/2", "a/10", "b/1"):
        (tmp_path / version).mkdir(parents=True)
        (tmp_path / version / "manifest.json").touch()
    read = list[Path]()
    monkeypatch.setattr(repository, "_read_model", lambda folder, _: read.append(folder))
    assert list(read_models(Settings(model_repository=tmp_path))) == ["a", "b"]
    assert read == [tmp_path / "a" / "10", tmp_path / "b" / "1"]


def test_the_default_model_is_the_one_that_is_named_or_the_first(model_repository: Path) -> None:
    models = read_models(Settings(model_repository=model_repository))
    assert default_model(models, Settings(default_model="xception")).name == "xception"
    assert default_model(models, Settings()).name == "inception_v4"
    with pytest.raises(StartupError, match="'vgg'"):
        default_model(models, Settings(default_model="vgg"))


def test_a_repository_of_one_version_alone(model_repository: Path) -> None:
    model = read_models(Settings(model_repository=model_repository))["xception"]
    with only(model) as alone:
        assert list(read_models(Settings(model_repository=alone))) == ["xception"]
