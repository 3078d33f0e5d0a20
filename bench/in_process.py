"""A model in this process, placed and fed as in the service."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.repository import Model, Photo
from service.errors import DeviceUnavailable
from service.inference.image import decode
from service.inference.manifest import read_labels
from service.inference.placement import CPU_DEVICES, Placement, candidates, load, place
from service.sessions import Session, Sessions
from service.settings import Settings

log = logging.getLogger("bench")


class InProcess:
    """A model in one precision on its device. ``str`` names both, for example ``int8 on cpu``."""

    def __init__(self, model: Model, settings: Settings, placement: Placement) -> None:
        self.model = model
        self.settings = settings
        self.placement = placement

    def __str__(self) -> str:
        return str(self.placement)

    @property
    def session(self) -> Session:
        """The session on the CPU, or on the first GPU."""
        return self.placement.sessions[0]

    @property
    def sessions(self) -> Sessions:
        """All sessions of the model. Each runs one batch at a time."""
        return self.placement.sessions

    def decode(self, photo: bytes, row: NDArray[np.uint8], *, fast: bool | None = None) -> None:
        """Decode a photo into ``row``, uint8 ``[height, width, 3]``. The settings choose fast or exact by default."""
        fast = self.settings.decode == "fast" if fast is None else fast
        decode(photo, row, self.model.manifest.preprocessing, self.settings.max_pixels, fast)

    def empty(self, count: int) -> NDArray[np.uint8]:
        """Return memory for ``count`` decoded images, uint8 ``[count, height, width, 3]``."""
        shape = self.model.manifest.input
        return np.empty((count, shape.height, shape.width, 3), np.uint8)

    def labelled(self, photos: Sequence[bytes]) -> list[Photo]:
        """Return photos with the labels that the session gives them."""
        names, image = read_labels(self.model.folder, self.model.manifest.labels), self.empty(1)
        found = []
        for photo in photos:
            self.decode(photo, image[0])
            found.append(Photo(photo, names[int(self.session.run(image).argmax())]))
        return found


def decoded(model: Model, photos: Sequence[Photo], settings: Settings) -> NDArray[np.uint8]:
    """Return the photos as the model's input, decoded exactly: uint8 ``[n, height, width, 3]``."""
    shape = model.manifest.input
    images = np.empty((len(photos), shape.height, shape.width, 3), np.uint8)
    for photo, row in zip(photos, images, strict=True):
        decode(photo.data, row, model.manifest.preprocessing, settings.max_pixels)
    return images


def as_served(model: Model, settings: Settings) -> InProcess:
    """Return the model on the device that the service would choose. Raises StartupError or InvalidManifest."""
    return InProcess(model, settings, place(model.folder, model.manifest, settings))


def every_way(model: Model, settings: Settings, served: InProcess) -> dict[str, InProcess]:
    """Return every way in which the model's device can run the model, by name. A CPU has several ways."""
    device = served.placement.device
    devices = CPU_DEVICES if settings.device == "auto" and device in CPU_DEVICES else [device]
    ways: dict[str, InProcess] = {}
    for candidate in (c for device in devices for c in candidates(model.manifest, settings.precision, device)):
        try:
            placement = load(model.folder, model.manifest, settings, candidate, "measured")
        except DeviceUnavailable as error:
            log.info("not measured: %s: %s", candidate, error)
            continue
        ways[str(candidate)] = InProcess(model, settings, placement)
    return ways
