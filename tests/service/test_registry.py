from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from service.errors import StartupError, Unavailable
from service.registry import Registry
from service.settings import Settings


def test_an_empty_repository_says_what_to_do(tmp_path: Path) -> None:
    registry = Registry(Settings(model_repository=tmp_path))
    with pytest.raises(StartupError, match="make export"):
        registry.load()
    registry.close()


def test_a_model_that_answers_its_golden_sample_wrong_is_not_served(model_repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "xception" / "1"
    shutil.copytree(model_repository / "xception" / "1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    best, second = manifest["golden"][0]["top_k"][:2]
    best["index"], second["index"] = second["index"], best["index"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    registry = Registry(Settings(model_repository=tmp_path, max_batch_size=1))
    registry.load()
    assert list(registry) == []
    assert registry.unready is not None
    assert "instead of" in registry.unready
    registry.observe()
    assert b"inferception_ready 0.0" in registry.metrics.exposition()
    with pytest.raises(Unavailable, match="re-export"):
        registry.get("xception")
    registry.close()
