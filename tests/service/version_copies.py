"""Copies of an exported version of Xception, for tests to change."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any


def repository(folder: Path, model_repository: Path, *versions: int) -> Path:
    """Make ``folder`` a repository with these versions of Xception, in int8 alone.

    The graph and its weights are links: remove a link before you write a file in its place.
    """
    exported = model_repository.resolve() / "xception" / "1"
    for version in versions:
        copy = folder / "xception" / str(version)
        shutil.copytree(exported, copy, ignore=shutil.ignore_patterns("*.onnx*"))
        for name in ("int8.onnx", "int8.onnx.data"):
            (copy / name).symlink_to(exported / name)
        variants = [variant for variant in entries(copy)["variants"] if variant["precision"] == "int8"]
        change(copy, version=version, variants=variants)
    return folder


def entries(version: Path) -> dict[str, Any]:
    """Return what a version's manifest says."""
    manifest: dict[str, Any] = json.loads((version / "manifest.json").read_text())
    return manifest


def change(version: Path, /, **changes: Any) -> None:
    """Change these entries of a version's manifest."""
    (version / "manifest.json").write_text(json.dumps(entries(version) | changes))


def replace(version: Path, name: str, content: bytes) -> str:
    """Put a file with this content in the place of another file. Return its sha256."""
    (version / name).unlink()
    (version / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()
