"""Reads a version folder of the model repository, and refuses one that is not what its manifest says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes the one in typing from Python 3.12 on

from service.errors import InvalidManifest
from service.inference.image import Preprocessing

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Strict):
    """A file beside the manifest, named by its path relative to the version folder."""

    file: str
    sha256: Sha256


class Labels(File):
    """The labels file: UTF-8, line ``i`` names class ``i``."""

    count: int = Field(ge=1)


class Architecture(_Strict):
    """The network and its options; for people to read, since the graph holds all that runs."""

    name: str
    options: dict[str, Any]


class Weights(_Strict):
    """Where the weights came from."""

    source: str
    sha256: Sha256 | None


class Input(_Strict):
    """The graph's input ``images``."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    layout: Literal["NHWC"]
    dtype: Literal["uint8"]


class Agreement(_Strict):
    """How far a variant's answers were from those of ``reference`` on ``images`` pictures, when it was exported."""

    reference: str
    images: int
    top1: float
    mean_abs_probability: float
    max_abs_probability: float


class Variant(File):
    """One ONNX file, and its precision; ``external_data`` are its weights, unless they are in the file itself."""

    external_data: File | None = None
    precision: Literal["fp32", "fp16", "int8"]
    agreement: Agreement


@with_config(extra="forbid")
class Prediction(TypedDict):
    """A class and its probability, 0..1. A plain dict, since every answer has some."""

    index: Annotated[int, Field(ge=0)]
    label: str
    probability: Annotated[float, Field(ge=0.0, le=1.0)]


class Golden(File):
    """A picture and the answer that a sound model gives to it, most probable first."""

    top_k: tuple[Prediction, ...] = Field(min_length=1)


class Manifest(_Strict):
    """``manifest.json`` of one version of one model."""

    schema_version: Literal[1]
    name: str
    version: int = Field(ge=1)
    architecture: Architecture
    trained: bool
    weights: Weights
    input: Input
    preprocessing: Preprocessing
    labels: Labels
    variants: tuple[Variant, ...] = Field(min_length=1)
    golden: tuple[Golden, ...] = Field(min_length=1)
    exporter: dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """Read ``folder``/manifest.json. Raises InvalidManifest when it is missing, malformed or of another folder."""
    path = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidManifest(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidManifest(f"{path} is not a valid manifest, re-export the model: {problems}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise InvalidManifest(f"{path} describes {manifest.name} version {manifest.version}; move or re-export it")
    return manifest


def checked_file(folder: Path, entry: File) -> Path:
    """Return the path of a file that the manifest names. Raises InvalidManifest unless its sha256 matches."""
    path = folder / entry.file
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidManifest(f"can't read {path}: {error.strerror}") from error
    if found != entry.sha256:
        raise InvalidManifest(f"{path} has sha256 {found}, its manifest says {entry.sha256}; re-export the model")
    return path


def read_labels(folder: Path, labels: Labels) -> tuple[str, ...]:
    """Return the class names in order. Raises InvalidManifest unless there are as many as the manifest says."""
    names = tuple(checked_file(folder, labels).read_text("utf-8").splitlines())
    if len(names) != labels.count:
        raise InvalidManifest(f"{folder / labels.file} has {len(names)} labels, its manifest says {labels.count}")
    return names
