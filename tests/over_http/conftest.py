"""One real server with real models for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.over_http.exchange import classify, label_of
from tests.server import Server, serving


@pytest.fixture(scope="package")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, body_timeout_ms=2000) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with server.client() as open_client:
        yield open_client


@pytest.fixture(scope="package")
def labelled(kitchenware_photos: list[tuple[Path, str | None]]) -> list[tuple[bytes, str]]:
    photos = [(path.read_bytes(), label) for path, label in kitchenware_photos if label is not None]
    assert len(photos) == 9
    return photos


@pytest.fixture(autouse=True)
def _still_serves(server: Server, labelled: list[tuple[bytes, str]]) -> Iterator[None]:
    """After every test, the server still answers a request."""
    yield
    with server.client() as after:
        assert label_of(classify(after, labelled[0][0])) == labelled[0][1]
