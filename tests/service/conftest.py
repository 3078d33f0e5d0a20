from __future__ import annotations

import pytest

from service.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_but_the_test_s_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings that ``make test`` exports, and use a new cache: a fake's timings must not be kept."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"INFERCEPTION_{name.upper()}", raising=False)
    monkeypatch.setenv("INFERCEPTION_CACHE", str(tmp_path_factory.mktemp("cache")))
