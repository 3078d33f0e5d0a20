"""What is left of a file once everything that its pixels don't need is out."""

from typing import NamedTuple


class Stored(NamedTuple):
    """A picture as it is stored, without metadata. Nothing that metadata says or breaks can then refuse the picture."""

    data: bytes
    orientation: int = 1  # EXIF's, from 1 (upright) to 8
    twin: bytes | None = None  # with another ending: where its pixels differ from those of ``data``, some are missing
