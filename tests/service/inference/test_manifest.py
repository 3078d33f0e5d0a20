from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidManifest
from service.inference.manifest import checked_file, read_labels, read_manifest


@pytest.fixture
def folder(model_repository: Path, tmp_path: Path) -> Path:
    """A copy of an exported version, to damage."""
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


def test_a_changed_file_is_not_loaded(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "labels.txt").write_text("cup\nfork\nglass\nknife\nspoon\nplate\n")
    with pytest.raises(InvalidManifest, match="sha256"):
        read_labels(folder, manifest.labels)
