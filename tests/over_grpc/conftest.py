"""One real server with Xception, and a channel to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.over_grpc.client import Client, connected, pictures
from tests.server import Server, serving
from tests.service.version_copies import repository


@pytest.fixture(scope="session")
def xception(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("models"), model_repository, 1)


@pytest.fixture(scope="package")
def server(xception: Path) -> Iterator[Server]:
    bytes_ = {"max_body_bytes": 9_000_000, "max_body_bytes_in_flight": 9_000_000}
    with serving(xception, grpc_port=0, device="cpu", max_batch_size=2, max_queue_size=16, **bytes_) as running:
        yield running


@pytest.fixture(scope="package")
def client(server: Server) -> Iterator[Client]:
    with connected(server) as open_client:
        yield open_client


@pytest.fixture
def over_http(server: Server) -> Iterator[httpx2.Client]:
    with server.client() as open_client:
        yield open_client


@pytest.fixture(scope="package")
def photo(xception: Path) -> bytes:
    return (xception / "xception" / "1" / "golden" / "0.jpg").read_bytes()


@pytest.fixture
def _still_serves(client: Client, photo: bytes) -> Iterator[None]:
    """After the test, the server still answers right."""
    yield
    assert b":plate" in client.infer(pictures(photo, classes=1)).raw_output_contents[0]
