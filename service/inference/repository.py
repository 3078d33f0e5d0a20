"""Lists a model repository: folders ``<name>/<version>``, in which ``manifest.json`` comes last."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import InvalidManifest, StartupError
from service.inference.traffic import FILE, Traffic, read_traffic

Signature = frozenset[tuple[str, int, int, int]]  # of each file: its path, its inode, its bytes, when it was written

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # has no need of quotes in a URL, a shell or a metric
_VERSION = re.compile(r"[1-9][0-9]*")  # so that no two names are one number


@dataclass
class Listing:
    """What is in a model repository. ``left_out`` says what is no version, and why."""

    versions: dict[str, dict[int, Signature]] = field(default_factory=dict)  # by model and number
    traffic: dict[str, Traffic] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # why, by model
    left_out: list[str] = field(default_factory=list)


def list_repository(repository: Path, only: str | None = None) -> Listing:
    """List a model repository, or ``only`` one model in it. Raises StartupError when it can't be read."""
    try:
        folders = sorted(path for path in repository.iterdir() if not path.is_file() and only in (None, path.name))
    except OSError as error:
        raise StartupError(
            f"can't read the model repository {repository}: {error.strerror}; mount it, or run `make export` first"
        ) from error
    listing = Listing()
    for folder in folders:
        if not _NAME.fullmatch(folder.name):
            _leave_out(listing, folder, "a name here must be letters, digits, '.', '_' and '-'")
            continue
        try:
            listing.traffic[folder.name] = read_traffic(folder)
            listing.versions[folder.name] = dict(_versions(folder, listing))
        except InvalidManifest as error:
            listing.unreadable[folder.name] = str(error)
    return listing


def _versions(model: Path, listing: Listing) -> Iterator[tuple[int, Signature]]:
    try:
        folders = list(model.iterdir())
    except OSError as error:
        raise InvalidManifest(f"can't read {model}: {error.strerror}") from error
    for folder in folders:
        if not _VERSION.fullmatch(folder.name):
            if folder.name != FILE:
                _leave_out(listing, folder, "a name here must be a positive integer without leading zeros")
        elif (signature := _signature(folder)) is None:
            _leave_out(listing, folder, "it has no manifest.json yet")
        else:
            yield int(folder.name), signature


def _leave_out(listing: Listing, path: Path, reason: str) -> None:
    if not path.name.startswith("."):
        listing.left_out.append(f"left out {str(path)!r}: {reason}")


def _signature(folder: Path) -> Signature | None:
    """Return what tells that a version has changed, or None without a manifest."""
    try:
        if not any(path.name == "manifest.json" for path in folder.iterdir()):
            return None
        stats = [(str(path), path.stat()) for path in folder.rglob("*")]
    except OSError:  # reading the version will say what is wrong
        return frozenset()
    return frozenset((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
