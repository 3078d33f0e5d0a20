"""The model repository on disk. A version appears there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def version_folder(repository: Path, name: str, version: int) -> Path:
    """Return the folder of a version of a model."""
    return repository / name / str(version)


@contextmanager
def staged_version(repository: Path, name: str, version: int) -> Iterator[Path]:
    """Yield an empty folder that becomes ``version`` of ``name`` when the block ends without an exception.

    An older version in that place stays until then. After an exception, the older version is unchanged and the new
    folder is gone. Folders left by a killed export are removed. Raises ValueError if another export of the model runs.
    """
    final = version_folder(repository, name, version)
    # Both folders are beside the final one, so that a rename is enough: the file system is the same. Their names are no
    # numbers, so that no server loads them.
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
    """Lock ``folder`` for this process. Make the folder if it is missing, and remove it if it is empty at the end."""
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
        with suppress(OSError):  # the folder is not empty
            folder.rmdir()


def _clean(final: Path, staging: Path, replaced: Path) -> None:
    if replaced.exists() and not final.exists():
        replaced.rename(final)
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
