"""The measured models and the photos that they are measured with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from service.errors import StartupError
from service.inference.manifest import Manifest, checked_file, read_labels, read_manifest
from service.inference.repository import list_repository
from service.settings import Settings

PHOTOS = Path(".cache/photos")  # where `make` puts them


class Photo(NamedTuple):
    """A JPEG file, and the label that its answer must name first, or None if the right label is unknown."""

    data: bytes
    label: str | None = None


@dataclass(frozen=True)
class Model:
    """One version of a model in its folder, and the photos that requests send to the model."""

    folder: Path
    manifest: Manifest
    photos: Sequence[Photo]

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.manifest.name


def read_models(settings: Settings, photos: Path | None = None) -> dict[str, Model]:
    """Return every model by name, in its highest version, with the photos of a folder.

    The folder holds ``<label>/<name>.jpg``. The default folder is ``PHOTOS``. If ``PHOTOS`` is missing too, each model
    gets its golden samples as photos.

    Raises StartupError if there is no model or no photo, and InvalidManifest.
    """
    versions = list_repository(settings.model_repository).versions
    folders = [settings.model_repository / name / str(max(found)) for name, found in versions.items() if found]
    if not folders:
        raise StartupError(f"no models in {settings.model_repository}: run `make export` first")
    if photos is None and PHOTOS.is_dir():
        photos = PHOTOS
    found = _read_photos(photos) if photos else []
    return {folder.parent.name: _read_model(folder, found) for folder in folders}


def default_model(models: dict[str, Model], settings: Settings) -> Model:
    """Return the model of the setting ``default_model``, or else the first. Raises StartupError if it is missing."""
    name = settings.default_model or next(iter(models))
    if name not in models:
        raise StartupError(f"default_model is {name!r}, which {settings.model_repository} lacks")
    return models[name]


def golden_samples(folder: Path, manifest: Manifest) -> list[Photo]:
    """Return a version's golden samples with their labels. Raises InvalidManifest."""
    return [Photo(checked_file(folder, g).read_bytes(), g.top_k[0]["label"]) for g in manifest.golden]


@contextmanager
def only(model: Model) -> Iterator[Path]:
    """Yield a model repository that holds only this version of this model."""
    with tempfile.TemporaryDirectory() as repository:
        (Path(repository) / model.name).mkdir()
        (Path(repository) / model.name / model.folder.name).symlink_to(model.folder.resolve())
        yield Path(repository)


def _read_model(folder: Path, photos: Sequence[Photo]) -> Model:
    manifest = read_manifest(folder)
    if not photos:
        return Model(folder, manifest, golden_samples(folder, manifest))
    known = read_labels(folder, manifest.labels) if manifest.trained else ()
    return Model(folder, manifest, [Photo(data, label if label in known else None) for data, label in photos])


def _read_photos(folder: Path) -> list[Photo]:
    files = sorted(folder.glob("*/*.jpg"))
    if not files:
        raise StartupError(f"no photos in {folder}: they are looked for as <label>/<name>.jpg")
    return [Photo(file.read_bytes(), file.parent.name) for file in files]
