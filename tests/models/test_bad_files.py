"""Files that are no weights, or weights that no answer may come from: the error says what the file is."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from models import create_model
from models.weights import LoadedModel, load_model

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
TORCH = ".pth or .pt or .bin or .ckpt or .tar"
SUFFIXES = [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".keras", ".h5"]


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def error_of(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as error:
        load_model("xception", str(path))
    return str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (LFS_POINTER, "is a Git LFS pointer: run git lfs pull"),
        (b"<!DOCTYPE html>\n<title>Sign in</title>", "is an HTML or XML page, not weights: download the file again"),
        (b"\xef\xbb\xbf\r\n <html></html>", "is an HTML or XML page, not weights: download the file again"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an HTML or XML page, not weights"),
        (zipped("notes/a.txt", "b.png"), "is a zip archive of notes/a.txt, b.png, not of weights"),
        (gzip.compress(b"weights"), "is a gzip archive: unpack it"),
        (pickle.dumps({"fc.weight": [1.0]}), "is a pickle that torch.save did not write"),
        (b"Not found", "is of no known format: it starts with b'Not found'"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_weights_says_what_it_is(suffix: str, content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert error_of(path).startswith(f"weights{suffix} {told}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (save({"a": torch.zeros(1)}), "is a safetensors file; its name must end in .safetensors"),
        (saved({"a": torch.zeros(1)}), f"is a torch file; its name must end in {TORCH}"),
        (
            saved({}, _use_new_zipfile_serialization=False),
            f"is a torch file; its name must end in {TORCH}",
        ),
        (zipped("config.json", "model.weights.h5"), "is a Keras archive; its name must end in .keras"),
        (b"\x89HDF\r\n\x1a\n and so on", "is an HDF5 file; its name must end in .h5"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else None,
)
def test_weights_under_a_wrong_name_say_the_right_one(content: bytes, told: str, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        assert suffix in told or error_of(path) == f"a{suffix} {told}"


def test_a_torchscript_archive_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(zipped("a/data.pkl", "a/constants.pkl", "a/code/net.py"))
    assert error_of(tmp_path / "a.pt") == "a.pt is a TorchScript archive: save model.state_dict() instead"


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path, old: bool) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    (tmp_path / "evil.pth").write_bytes(saved({"fc.weight": Payload()}, _use_new_zipfile_serialization=not old))
    assert error_of(tmp_path / "evil.pth").startswith("evil.pth is not a file of tensors only")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("a.safetensors", save, "cannot be read, it may be truncated"),
        ("a.pth", saved, "is a zip archive without its end: it is truncated"),
        (
            "old.pth",
            lambda state: saved(state, _use_new_zipfile_serialization=False),
            "cannot be read, it may be truncated",
        ),
    ],
)
def test_a_truncated_file_is_refused(
    live_xception: LoadedModel, tmp_path: Path, name: str, write: Callable[[Any], bytes], told: str, share: float
) -> None:
    content = write(live_xception.model.state_dict())
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert error_of(tmp_path / name).startswith(f"{name} {told}")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 60]}},
        {"a": {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_a_safetensors_header_that_lies_is_refused(header: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    assert error_of(tmp_path / "a.safetensors").startswith("a.safetensors cannot be read")


@pytest.mark.parametrize("length", [0, 5, 1 << 20, 1 << 63])
def test_a_safetensors_header_of_another_length_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a": {}}')
    assert error_of(tmp_path / "a.safetensors").startswith("a.safetensors cannot be read")


def with_value(state: dict[str, Tensor], key: str, value: float) -> dict[str, Tensor]:
    changed = state[key].double().clone()
    changed.view(-1)[-1] = value
    return state | {key: changed}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("key", ["fc.bias", "conv1.weight", "block7.rep.2.running_var"])
def test_a_weight_that_is_no_number_is_named(
    live_xception: LoadedModel, tmp_path: Path, key: str, value: float
) -> None:
    state = with_value(dict(live_xception.model.state_dict()), key, value)
    (tmp_path / "a.safetensors").write_bytes(save(state))
    assert error_of(tmp_path / "a.safetensors") == (
        f"a.safetensors holds 1 values in {key} that are NaN or too large for float32"
    )


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("fc.weight", torch.tensor(1.0), r"1 of another shape (fc.weight [] instead of [1000, 2048])"),
        ("fc.bias", torch.zeros(999), r"1 of another shape (fc.bias [999] instead of [1000])"),
        ("fc.bias", torch.zeros(1000, dtype=torch.int64), "1 of another type (fc.bias torch.int64 instead of"),
        ("fc.bias", torch.zeros(1000, dtype=torch.complex64), "1 of another type (fc.bias torch.complex64 instead of"),
    ],
)
def test_a_tensor_of_another_kind_is_named(
    live_xception: LoadedModel, tmp_path: Path, key: str, value: Tensor, told: str
) -> None:
    (tmp_path / "a.pth").write_bytes(saved(dict(live_xception.model.state_dict()) | {key: value}))
    assert told in error_of(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["xception", "inception_v4"])
def test_a_head_of_one_class_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(save(create_model(name, num_classes=1).state_dict()))
    with pytest.raises(ValueError, match=r"a\.safetensors tells 1 classes apart; a classifier needs at least 2"):
        load_model(name, str(tmp_path / "a.safetensors"), labels=["cat"])
