"""The model repository on disk, where a version appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def version_folder(repository: Path, name: str, version: int) -> Path:
    """Return where a version of a model lies."""
    return repository / name / str(version)


@contextmanager
def staged_version(repository: Path, name: str, version: int) -> Iterator[Path]:
    """Yield an empty folder that becomes ``version`` of ``name`` when the block ends without an exception.

    A version already there stays in place until then; after an exception it is as it was, and nothing else is left.
    Folders left over by a killed export are removed. Raises ValueError when another export of the model is running.
    """
    final = version_folder(repository, name, version)
    # Beside it, hence on the same file system, where a rename is enough; and not a number, so that nothing serves it.
    staging, replaced = final.with_name(f".{version}.partial"), final.with_name(f".{version}.replaced")
    with _locked(final.parent):
        try:
            _clean(final, staging, replaced)
            staging.mkdir()
            yield staging
            if final.exists():
                final.rename(replaced)
            staging.rename(final)
        finally:
            _clean(final, staging, replaced)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone, until it ends at the latest; make it, and remove it if it stays empty."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ValueError(f"another export is writing to {folder}; run again when it has finished") from error
    try:
        yield
    finally:
        os.close(lock)
        with suppress(OSError):  # not empty
            folder.rmdir()


def _clean(final: Path, staging: Path, replaced: Path) -> None:
    if replaced.exists() and not final.exists():
        replaced.rename(final)
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
