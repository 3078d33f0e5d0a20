from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from models.download import WeightsUnavailable, describe, fetch
from models.spec import HubFile
from tests.models.download.file_server import COMMIT, CONTENT, HUB_PATH, SHA256, FileServer

HUB_FILE = HubFile("someone/model", "weights/model.safetensors", "main")


def test_hub_file_is_fetched_checked_and_shows_progress(hub: FileServer, capfd: pytest.CaptureFixture[str]) -> None:
    path, sha256 = fetch(HUB_FILE)
    assert path.read_bytes() == CONTENT
    assert sha256 == SHA256
    assert describe(HUB_FILE, path) == f"hub:someone/model/weights/model.safetensors@{COMMIT}"
    assert "100%" in capfd.readouterr().err


def test_cached_hub_file_needs_no_network(hub: FileServer) -> None:
    first = fetch(HUB_FILE)
    asked = len(hub.requests)
    assert fetch(HUB_FILE) == first
    assert len(hub.requests) == asked


def test_hub_file_resumes_where_the_connection_dropped(hub: FileServer) -> None:
    content = CONTENT * 24
    hub.files[HUB_PATH] = content
    hub.drop = 1
    path, _ = fetch(HUB_FILE)
    assert path.read_bytes() == content
    starts = [int(request.rpartition(" ")[2]) for request in hub.requests if request.startswith(f"GET {HUB_PATH}")]
    assert len(starts) == 2
    assert 0 == starts[0] < starts[1] <= len(content) // 2


def test_damaged_hub_file_is_fetched_anew(hub: FileServer) -> None:
    path, _ = fetch(HUB_FILE)
    path.resolve().write_bytes(CONTENT[:-1] + b"?")
    again, sha256 = fetch(HUB_FILE)
    assert again.read_bytes() == CONTENT
    assert sha256 == SHA256


def test_hub_file_with_another_hash_than_published_is_refused(hub: FileServer, cache: Path) -> None:
    hub.published_sha256 = "0" * 64
    with pytest.raises(WeightsUnavailable, match="does not have the sha256 that the hub publishes"):
        fetch(HUB_FILE)
    assert not [path for path in (cache / "hub").rglob("*") if path.is_file() and path.read_bytes() == CONTENT]


def test_unreachable_hub_says_what_to_do(hub: FileServer) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(WeightsUnavailable, match=r"cannot get weights/model\.safetensors of someone/model") as error:
        fetch(HUB_FILE)
    assert "--weights FILE or --weights untrained" in str(error.value)


def test_missing_hub_file_says_so(hub: FileServer) -> None:
    with pytest.raises(WeightsUnavailable, match="404"):
        fetch(replace(HUB_FILE, filename="other.safetensors"))


def test_hub_s_offline_switch_is_honoured(hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="offline mode is enabled"):
        fetch(HUB_FILE)
    assert hub.requests == []
