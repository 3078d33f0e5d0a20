from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.download import WeightsUnavailable, describe, fetch
from models.spec import ReleaseFile
from tests.models.download.file_server import CONTENT, SHA256, FileServer


@pytest.fixture
def release(server: FileServer) -> ReleaseFile:
    name = f"model-{SHA256[:9]}.pth"
    server.files[f"/releases/{name}"] = CONTENT
    return ReleaseFile(f"{server.url}/releases/{name}", SHA256[:9])


def test_release_file_is_fetched_checked_and_shows_progress(
    release: ReleaseFile, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, sha256 = fetch(release)
    assert path == cache / "releases" / f"model-{SHA256[:9]}.pth"
    assert path.read_bytes() == CONTENT
    assert sha256 == SHA256
    assert describe(release, path) == f"release:{release.url}"
    assert "100%" in capfd.readouterr().err


def test_cached_release_file_needs_no_network(server: FileServer, release: ReleaseFile) -> None:
    first = fetch(release)
    assert fetch(release) == first
    assert len(server.requests) == 1


def test_release_file_restarts_when_the_connection_dropped(server: FileServer, release: ReleaseFile) -> None:
    server.drop = 1
    path, _ = fetch(release)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_release_file_that_keeps_breaking_leaves_nothing(server: FileServer, release: ReleaseFile, cache: Path) -> None:
    server.drop = 2
    with pytest.raises(WeightsUnavailable, match=r"or put the file at .*\.pth"):
        fetch(release)
    assert list((cache / "releases").iterdir()) == []


def test_damaged_release_file_is_fetched_anew(release: ReleaseFile) -> None:
    path, _ = fetch(release)
    path.write_bytes(b"damaged")
    assert fetch(release)[0].read_bytes() == CONTENT


def test_release_file_with_another_hash_is_refused(server: FileServer, release: ReleaseFile, cache: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="invalid hash value"):
        fetch(replace(release, sha256_prefix="000000000"))
    assert list((cache / "releases").iterdir()) == []


def test_release_file_without_a_network_says_what_to_do(server: FileServer, release: ReleaseFile) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsUnavailable, match="refused") as error:
        fetch(release)
    assert "--weights untrained" in str(error.value)
