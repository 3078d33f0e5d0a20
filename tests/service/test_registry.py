from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service import classifier
from service.budget import Budget
from service.classifier import Classifier
from service.errors import StartupError, Unavailable
from service.inference import placement
from service.inference.placement import Placement
from service.inference.session import Session
from service.metrics import Metrics
from service.registry import Registry
from service.scheduling.batch_queue import Priority
from service.scheduling.batcher import Batcher
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


def test_a_lone_photo_has_a_head_start(
    model_repository: Path, tmp_path: Path, kitchenware_photos: list[tuple[Path, str | None]]
) -> None:
    (tmp_path / "xception").symlink_to((model_repository / "xception").resolve())
    registry = Registry(Settings(model_repository=tmp_path, device="cpu", threads=2, streams=2, max_batch_size=1))
    registry.load()

    async def queue_s() -> float:
        deadline = asyncio.get_running_loop().time() + 30.0
        photo = kitchenware_photos[0][0].read_bytes()
        model = registry.get("xception")
        return (await model.classify(photo, top_k=1, deadline=deadline, priority=Priority.NORMAL)).queue_s

    assert asyncio.run(queue_s()) == 0.0  # through the loop it would wait a little
    registry.close()


class FourTimes(Session):
    """A session on which everything takes four times as long."""

    def __init__(self, session: Session) -> None:
        self.__dict__ |= vars(session)  # its shapes
        self._real = session

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        for _ in range(3):
            self._real.run(images)
        return self._real.run(images)


@pytest.mark.parametrize("slow", [False, True])
def test_streams_that_are_slower_than_one_batch_at_a_time_are_given_up(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    def place(*arguments: Any) -> Placement:
        placed = placement.place(*arguments)
        if slow:
            return dataclasses.replace(placed, streams=[FourTimes(s) for s in placed.streams])
        return dataclasses.replace(placed, sessions=[FourTimes(s) for s in placed.sessions])

    monkeypatch.setattr(classifier, "place", place)
    settings = Settings(
        model_repository=model_repository, device="cpu", precision="int8", threads=2, streams=2, max_batch_size=2
    )
    batcher = Batcher(1, Metrics(), 1.0, devices=2)
    model = Classifier(model_repository / "xception" / "1", settings, batcher, Budget(10_000_000))
    assert len(model.lane.sessions) == len(model.placement.streams) == (0 if slow else 2)
    assert model.lane.whole is model.placement.sessions[0]
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


def test_a_model_that_gives_no_numbers_is_not_served(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xception").symlink_to((model_repository / "xception").resolve())
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda session, images: run(session, images) * np.float32("nan"))
    registry = Registry(Settings(model_repository=tmp_path, device="cpu", max_batch_size=1))
    registry.load()
    assert list(registry) == []
    assert "(nan)" in str(registry.unready)
    registry.close()
