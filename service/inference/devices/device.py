"""What every device has, and what a device is told of a model."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.inference.session import OnnxSession
from service.settings import Settings


class Graph(NamedTuple):
    """An ONNX file, the precision that it is to be computed in, and the size of its images in pixels."""

    file: Path
    precision: str
    height: int
    width: int


class Device(Protocol):
    """One kind of device."""

    kernels_by_size: ClassVar[bool] = False  # whether it chooses its kernels the first time that a batch size runs

    def check(self, settings: Settings) -> str:
        """Return the version of the library that runs models on the device.

        Raises DeviceUnavailable, with each cause and its cure, when a check without a model finds something missing.
        """

    def suitable(self, exported: Collection[str]) -> list[str]:
        """Return the precisions that suit the device, the most precise first, whether or not all are ``exported``."""

    def sessions(self, graph: Graph, settings: Settings) -> tuple[OnnxSession, ...]:
        """Return a session for each batch that may run at a time: one a GPU, or one for the CPU as a whole.

        Raises DeviceUnavailable or InvalidManifest.
        """

    def pin(self, memory: NDArray[Any]) -> None:
        """Lock ``memory`` into RAM for as long as it lives, if the device fetches faster from there.

        Raises DeviceUnavailable.
        """
        return

    def tried_out(self, session: OnnxSession) -> OnnxSession:
        """Return the session once it has run an image from pinned memory. Raises DeviceUnavailable when that fails."""
        image = np.zeros((1, session.height, session.width, 3), np.uint8)
        self.pin(image)
        try:
            session.run(image)
        except Exception as error:  # onnxruntime's exceptions share no base below Exception
            raise DeviceUnavailable(f"{session.provider} loads the model, but can't run it: {error}") from error
        return session
