from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidManifest
from service.inference.manifest import checked_file, checked_variant, read_labels, read_manifest


@pytest.fixture
def folder(model_repository: Path, tmp_path: Path) -> Path:
    """A copy of an exported version, which tests damage."""
    copy = tmp_path / "xception" / "1"
    shutil.copytree(model_repository / "xception" / "1", copy)
    return copy


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_exported_manifest_is_valid(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert read_labels(folder, manifest.labels) == ("cup", "fork", "glass", "knife", "plate", "spoon")
    assert manifest.trained
    weights = [variant.external_data for variant in manifest.variants]
    for entry in (*manifest.variants, *weights, *manifest.golden):
        assert entry is not None
        assert checked_file(folder, entry).is_file()


def test_missing(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(InvalidManifest, match="No such file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"golden": []}, "golden"),
        ({"surprise": 1}, "surprise"),
        ({"name": "other"}, "describes other version 1"),
        ({"version": 7}, "describes xception version 7"),
    ],
)
def test_what_breaks_the_contract_is_named(folder: Path, changes: dict[str, Any], told: str) -> None:
    edited(folder, **changes)
    with pytest.raises(InvalidManifest, match=told):
        read_manifest(folder)


@pytest.mark.parametrize("index", [6, 10**30])
def test_a_golden_answer_that_is_no_class(folder: Path, index: int) -> None:
    golden = json.loads((folder / "manifest.json").read_text())["golden"]
    golden[-1]["top_k"][-1]["index"] = index
    edited(folder, golden=golden)
    with pytest.raises(InvalidManifest, match=f"golden: .*an answer is class {index}, but there are 6 labels"):
        read_manifest(folder)


@pytest.mark.parametrize("crop_pct", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_crop_that_is_no_part_of_a_picture(folder: Path, crop_pct: float) -> None:
    preprocessing = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    edited(folder, preprocessing=preprocessing | {"crop_pct": crop_pct})
    with pytest.raises(InvalidManifest, match="crop_pct"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../1/labels.txt", "golden/../../1/labels.txt", "labels\0.txt"])
def test_a_name_that_leaves_the_folder(folder: Path, name: str) -> None:
    labels = json.loads((folder / "manifest.json").read_text())["labels"]
    edited(folder, labels=labels | {"file": name})
    with pytest.raises(InvalidManifest, match=r"labels\.file: .*inside the version folder"):
        read_manifest(folder)


def test_a_manifest_that_is_a_pipe(folder: Path) -> None:
    """Nothing writes to the pipe, so opening it would never return."""
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        read_manifest(folder)


def test_a_file_that_is_a_pipe_or_a_folder(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "labels.txt").unlink()
    os.mkfifo(folder / "labels.txt")
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        checked_file(folder, manifest.labels)
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        checked_file(folder, manifest.labels.model_copy(update={"file": "golden"}))


def test_labels_that_are_not_utf_8(folder: Path) -> None:
    content = "cup\nfork\nglass\nknife\nplate\nLöffel\n".encode("latin-1")
    (folder / "labels.txt").write_bytes(content)
    labels = json.loads((folder / "manifest.json").read_text())["labels"]
    edited(folder, labels=labels | {"sha256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(InvalidManifest, match="is not UTF-8"):
        read_labels(folder, read_manifest(folder).labels)


def test_data_that_a_graph_has_and_the_manifest_does_not_name(folder: Path) -> None:
    for variant in read_manifest(folder).variants:
        assert checked_variant(folder, variant) == folder / variant.file
        with pytest.raises(InvalidManifest, match=rf"has data in .*/{variant.file}\.data, which its manifest does not"):
            checked_variant(folder, variant.model_copy(update={"external_data": None}))


def test_a_changed_file_is_not_loaded(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "labels.txt").write_text("cup\nfork\nglass\nknife\nspoon\nplate\n")
    with pytest.raises(InvalidManifest, match="sha256"):
        read_labels(folder, manifest.labels)
