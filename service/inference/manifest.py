"""Reads a version folder of the model repository, and refuses one that is not what its manifest says."""

import hashlib
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes the one in typing from Python 3.12 on

from service.errors import InvalidManifest, StartupError
from service.inference.image import Preprocessing


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("the name must be of a file inside the version folder")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# How a tensor of an ONNX graph names the file of its data, in protobuf: field 13 of the tensor and its length, the key
# "location", the length of the name. A length has 7 bits in a byte, the lowest first, and the last byte is below 128.
# Looking for it takes a moment, and parsing the graph would take a library that the service does without.
_LOCATION = re.compile(rb"\x6a[\x80-\xff]*[\x00-\x7f]\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")

_MAX_BYTES = 1 << 21  # of a manifest, and of labels: far more than either needs
_MAX_REASON = 2000  # characters that tell what is wrong in a manifest, where everything may be


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(_Strict):
    """A file beside the manifest, named by its path relative to the version folder."""

    file: Annotated[str, AfterValidator(_inside)]
    sha256: Sha256


class Labels(File):
    """The labels file: UTF-8, line ``i`` names class ``i``."""

    count: int = Field(ge=1)


class Weights(_Strict):
    """Where the weights came from."""

    source: str
    sha256: Sha256 | None


class Input(_Strict):
    """The graph's input ``images``; height and width are in pixels."""

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
    """One ONNX file, and its precision. ``external_data`` is the file of its weights, unless they are in the graph."""

    external_data: File | None = None
    precision: Literal["fp32", "fp16", "int8"]
    agreement: Agreement


@with_config(extra="forbid", allow_inf_nan=False)
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
    architecture: dict[str, Any]  # for people to read, as the exporter's versions: the graph holds all that runs
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
        manifest = Manifest.model_validate_json(_read(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())[:_MAX_REASON]
        raise InvalidManifest(f"{path} is not a valid manifest, re-export the model: {problems}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise InvalidManifest(f"{path} describes {manifest.name} version {manifest.version}; move or re-export it")
    classes = manifest.labels.count
    for prediction in (prediction for sample in manifest.golden for prediction in sample.top_k):
        if (index := prediction["index"]) >= classes:
            raise InvalidManifest(f"{path}, golden: an answer is class {index}, but there are {classes} labels")
    return manifest


def checked_file(folder: Path, entry: File) -> Path:
    """Return the path of a file that the manifest names. Raises InvalidManifest unless its sha256 matches."""
    path = folder / entry.file
    with _opened(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise InvalidManifest(f"{path} has sha256 {found}, its manifest says {entry.sha256}; re-export the model")
    return path


def checked_variant(folder: Path, variant: Variant) -> Path:
    """Return the path of a variant's graph. Raises InvalidManifest unless graph and data are as described."""
    model = checked_file(folder, variant)
    weights = {checked_file(folder, variant.external_data)} if variant.external_data is not None else set()
    content = model.read_bytes()
    names = {content[at : at + length] for at, length in map(_name_at, _LOCATION.finditer(content))}
    if others := {model.parent / name.decode(errors="replace") for name in names} - weights:
        raise InvalidManifest(f"{model} has data in {min(others)}, which its manifest does not name; re-export it")
    return model


@contextmanager
def private_copy(folder: Path, variant: Variant) -> Iterator[Path]:
    """Copy a variant's files to where nobody else writes, check the copies, and yield the path of the graph.

    ONNX Runtime maps weights into memory. If a mapped file is cut short, the next batch ends the process by SIGBUS. The
    copies lose their names as the block ends, and their bytes stay for as long as they are mapped.
    Raises what ``checked_variant`` raises. Errors of the block name ``folder``, too.
    """
    with tempfile.TemporaryDirectory(prefix="inferception-") as private:
        try:
            for entry in filter(None, (variant, variant.external_data)):
                copy = Path(private, entry.file)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with _opened(folder / entry.file) as file:
                    _copy(file, copy)
            yield checked_variant(Path(private), variant)
        except StartupError as error:
            error.args = (str(error).replace(private, str(folder)),)
            raise


def _copy(file: BufferedReader, path: Path) -> None:
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    except OSError as error:
        raise StartupError(
            f"can't copy the weights to {path.parent}: {error.strerror}; TMPDIR names the folder"
        ) from error


def _name_at(location: re.Match[bytes]) -> tuple[int, int]:
    """Return where the name of a data file starts, and its length in bytes."""
    return location.end(), sum((byte & 0x7F) << 7 * place for place, byte in enumerate(location[1]))


def read_labels(folder: Path, labels: Labels) -> tuple[str, ...]:
    """Return the class names in order. Raises InvalidManifest unless the file is as the manifest says, and UTF-8.

    Two classes may have one name, as the two cranes of ImageNet have.
    """
    path = checked_file(folder, labels)
    try:
        names = tuple(_read(path).decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise InvalidManifest(f"{path} is not UTF-8 ({error}); re-export the model") from error
    if not all(map(str.strip, names)):
        raise InvalidManifest(f"{path} has an empty line, which names no class; re-export the model")
    if len(names) != labels.count:
        raise InvalidManifest(f"{path} has {len(names)} labels, its manifest says {labels.count}")
    return names


def _read(path: Path) -> bytes:
    """Return the bytes of a small file. Raises InvalidManifest for a large one, before all of it is in memory."""
    with _opened(path) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InvalidManifest(f"{path} has more than {_MAX_BYTES} bytes")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file. Raises InvalidManifest for all but a readable regular file: a FIFO waits for a writer."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidManifest(f"{path} is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InvalidManifest(f"can't read {path}: {error.strerror}") from error
