from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from service.batcher import Batcher
from service.budget import Budget
from service.classifier import Classifier
from service.errors import StartupError, Unavailable
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings


def test_rows_are_enough_for_a_full_queue_while_every_stream_runs_its_largest_batch(model_repository: Path) -> None:
    settings = Settings(
        model_repository=model_repository, device="cpu", threads=3, streams=3, max_queue_size=2, max_batch_size=3
    )
    batcher = Batcher(1, Metrics(), 1.0, devices=3)
    model = Classifier(model_repository / "xception" / "1", settings, batcher, Budget(10_000_000))
    leased = 0
    while model.lane.pixels.lease() is not None:
        leased += 1
    assert leased == 2 + 3 * 3 + settings.decode_threads
    batcher.close()


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
