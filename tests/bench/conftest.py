from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_but_the_test_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the server's settings from the environment: ``make test`` sets some."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"INFERCEPTION_{name.upper()}", raising=False)


@pytest.fixture
def xception_alone(model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with only Xception, which servers run in small batches on the CPU."""
    repository = tmp_path / "models"
    repository.mkdir()
    (repository / "xception").symlink_to((model_repository / "xception").resolve())
    chosen = {
        "MODEL_REPOSITORY": repository,
        "DEVICE": "cpu",
        "MAX_BATCH_SIZE": 2,
        "THREADS": 2,
        "CACHE": tmp_path / "cache",
        "DRAIN_GRACE_MS": 0,
    }
    for name, value in chosen.items():
        monkeypatch.setenv(f"INFERCEPTION_{name}", str(value))
    return repository
