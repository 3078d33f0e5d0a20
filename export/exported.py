"""Read a version of a model from the repository, as the service does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from export.labels import read_labels
from export.repository import version_folder
from models.download import sha256_of
from models.spec import Preprocessing


@dataclass(frozen=True, slots=True)
class ExportedVersion:
    """A version on disk. ``name`` is NAME/VERSION, and ``sha256`` the hash of its manifest, which pins all files."""

    folder: Path
    name: str
    sha256: str
    trained: bool
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    precisions: tuple[str, ...]


def read_version(repository: Path, model: str) -> ExportedVersion:
    """Return the version that ``model`` names: NAME/VERSION, or NAME for the highest version.

    Raises ValueError if there is no such version, or if one of its files is not what the manifest describes.
    """
    name, _, number = model.partition("/")
    versions = sorted(int(path.name) for path in (repository / name).glob("*") if path.name.isdecimal())
    if not versions or number not in {"", *map(str, versions)}:
        raise ValueError(f"there is no version of {model!r} in {repository}; write one with python -m export")
    folder = version_folder(repository, name, int(number or versions[-1]))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    graphs = manifest["variants"]
    for file in [manifest["labels"], *graphs, *(graph["external_data"] for graph in graphs)]:
        if sha256_of(folder / file["file"]) != file["sha256"]:
            raise ValueError(f"{folder / file['file']} is not the file that manifest.json describes; export it again")
    return ExportedVersion(
        folder=folder,
        name=f"{name}/{folder.name}",
        sha256=sha256_of(folder / "manifest.json"),
        trained=manifest["trained"],
        labels=read_labels(folder / manifest["labels"]["file"]),
        preprocessing=Preprocessing(input_size=manifest["input"]["height"], **manifest["preprocessing"]),
        precisions=tuple(variant["precision"] for variant in graphs),
    )
