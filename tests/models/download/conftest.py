from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.models.download.file_server import CONTENT, HUB_PATH, FileServer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERCEPTION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(server: FileServer) -> Iterator[FileServer]:
    """The server in the role of the hub. The library reads HF_ENDPOINT at import, so its constants are reloaded."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", server.url)
        environment.delenv("HF_HUB_OFFLINE", raising=False)
        importlib.reload(huggingface_hub.constants)
        server.files[HUB_PATH] = CONTENT
        yield server
    importlib.reload(huggingface_hub.constants)
