from __future__ import annotations

from pathlib import Path

import pytest

from models import find_spec
from models.download import is_cached
from models.kitchenware import KITCHENWARE
from models.spec import HubFile


def test_what_is_cached_is_known_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_cached(KITCHENWARE)
    monkeypatch.setenv("INFERCEPTION_CACHE", str(tmp_path))
    release = find_spec("xception").weights["imagenet"].source
    assert not any(
        map(is_cached, (KITCHENWARE, release, HubFile("timm/inception_v3.tf_in1k", "model.safetensors", "main")))
    )
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "xception-43020ad28.pth").write_bytes(b"")
    assert is_cached(release)
