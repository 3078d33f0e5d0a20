"""A runtime that looks at its repository when a test says so, and what it serves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from service.settings import Settings


def settings(models: Path, **others: Any) -> Settings:
    chosen: dict[str, Any] = {"repository": "explicit", "admin_api": True, "precision": "int8"} | others
    return Settings(model_repository=models, device="cpu", max_batch_size=2, **chosen)


def served(runtime: Runtime) -> list[int]:
    return sorted(one.version for one in runtime.registry)


def damage(version: Path) -> None:
    (version / "labels.txt").write_text("cup\n")


async def asked(runtime: Runtime, requests: int) -> Counter[int]:
    """Count the versions that requests get which name none."""
    questions = (runtime.predict.question("xception", None, None, Priority.NORMAL) for _ in range(requests))
    return Counter(question.classifier.version for question in questions)
