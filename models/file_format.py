"""What a weights file really is, told from its content: a name promises what a failed download does not keep."""

from __future__ import annotations

import zipfile
from pathlib import Path

SUFFIXES = {
    "a safetensors file": (".safetensors",),
    "a torch file": (".pth", ".pt", ".bin", ".ckpt", ".tar"),  # of the hub, of Lightning, and .pth.tar of timm
    "a Keras archive": (".keras",),
    "an HDF5 file": (".h5",),
}
FILE_TYPES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

_FIRST_BYTES = {
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a torch file",  # the magic number of torch before 1.6
    b"\x80": "a pickle that torch.save did not write",
    b"\x1f\x8b": "a gzip archive: unpack it",
}


def check_format(path: Path) -> None:
    """Raise ValueError that says what ``path`` is, unless its content is what the end of its name promises."""
    if path.suffix not in FILE_TYPES:
        raise ValueError(f"{path.name} is not a weights file; its name must end in one of {' '.join(FILE_TYPES)}")
    found = _found(path)
    if path.suffix not in (suffixes := SUFFIXES.get(found, ())):
        advice = f"; its name must end in {' or '.join(suffixes)}" if suffixes else ""
        raise ValueError(f"{path.name} is {found}{advice}")


def _found(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return "empty"
    if start.startswith(b"PK\x03\x04"):
        return _found_archive(path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "an HTML or XML page, not weights: download the file again"
    if start[8:9] == b"{":  # after the header's length in 8 bytes
        return "a safetensors file"
    known = (found for first, found in _FIRST_BYTES.items() if start.startswith(first))
    return next(known, f"of no known format: it starts with {start[:16]!r}")


def _found_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip archive without its end: it is truncated"
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return "a TorchScript archive: save model.state_dict() instead"
    if "data.pkl" in ends:
        return "a torch file"
    if "model.weights.h5" in ends:
        return "a Keras archive"
    return f"a zip archive of {', '.join(names[:3]) or 'nothing'}, not of weights"
