"""Where the rows go: standard output or a file. A CSV file that was interrupted is continued."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from service.classify_photos.forms import AsCsv
from service.errors import InvalidParameter


@contextmanager
def opened(path: Path | None, header: str, *, resume: bool) -> Iterator[TextIO]:
    """Open the output for writing at its end, and begin it with ``header``. Paths that are not UTF-8 stay as they are.

    Raises InvalidParameter for a file that can't be written, or that holds something although there is no ``resume``.
    """
    try:
        out = open(  # noqa: SIM115 - may be a descriptor; closed below
            path or sys.stdout.fileno(), "a", encoding="utf-8", errors="surrogateescape", closefd=path is not None
        )
    except OSError as error:
        raise InvalidParameter(f"can't write {path}: {error.strerror}") from None
    with out:
        begun = path is not None and out.seekable() and out.tell() > 0
        if begun and not resume:
            raise InvalidParameter(f"{path} is not empty: remove it, or name another file; only --csv continues a file")
        if not begun:
            out.write(header)
        yield out


def already_in(path: Path, form: AsCsv) -> dict[str, str]:
    """Return the rows of an earlier run, as errors by photo, and cut off a last row that was half written.

    Raises InvalidParameter for a file that is no such CSV, and leaves it as it is.
    """
    try:
        with path.open("r+b") as file:
            header = form.header.encode()
            start = file.read(len(header))
            if not header.startswith(start):
                raise InvalidParameter(f"{path} has other columns: remove it, or name another file")
            done, whole = _whole_rows(file, len(form.columns))
            if file.read(1):
                raise InvalidParameter(f"{path} has a broken row, not at its end: remove it, or name another file")
            file.truncate(whole if start == header else 0)
            return done
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidParameter(f"can't read {path}: {error.strerror or error}") from None


def _whole_rows(file: BinaryIO, columns: int) -> tuple[dict[str, str], int]:
    """Read rows up to one that is not whole. Return their errors by photo, and where the last whole row ends."""
    done: dict[str, str] = {}
    whole, line = file.tell(), b""

    def lines() -> Iterator[str]:
        nonlocal line
        for line in iter(file.readline, b""):
            yield line.decode("utf-8", "surrogateescape")

    try:
        for row in csv.reader(lines(), strict=True):
            if len(row) != columns or not line.endswith(b"\n"):
                break
            done[row[0]], whole = row[-1], file.tell()
    except csv.Error:  # a quotation that the file's end cuts off
        pass
    return done, whole
