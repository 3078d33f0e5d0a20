"""What ``inference`` makes of a model and ``scheduling`` runs."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Session(Protocol):
    """One model on one device, ready to run."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 ``[n, height, width, 3]`` to probabilities ``[n, classes]``. Blocks until they are there."""


# One session for each slot of the model: each GPU, or the CPU as a whole.
Sessions = tuple[Session, ...]
