"""One fixed block of memory for all the decoded pixels of a model: the bound on decoded bytes.

Decoders write straight into their row, and a batch is usually a slice of neighbouring rows, so that nothing is
copied between the decoder and the session.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Pin = Callable[[NDArray[np.uint8]], None]


class PixelSlab:
    """``rows`` images of uint8 ``[height, width, 3]``; a row belongs to whoever leased it until it is returned.

    A batch runs on one of ``slots``. ``pin`` is called with each array that batches are taken from.
    """

    def __init__(
        self, rows: int, max_batch_size: int, height: int, width: int, slots: int = 1, pin: Pin = lambda memory: None
    ) -> None:
        # The spare rows at the end let a batch at the edge be padded in place.
        self._pixels = np.zeros((rows + max_batch_size, height, width, 3), np.uint8)
        self._gathered = [np.zeros((max_batch_size, height, width, 3), np.uint8) for _ in range(slots)]
        for memory in (self._pixels, *self._gathered):
            pin(memory)
        # First returned, first leased: rows go round in arrival order, which keeps batches contiguous.
        self._rows = rows
        self._free = deque(range(rows))

    def __len__(self) -> int:
        """Return how many rows are leased now."""
        return self._rows - len(self._free)

    @property
    def leased_bytes(self) -> int:
        """Bytes of the leased rows."""
        return len(self) * int(self._pixels[0].nbytes)

    @property
    def free(self) -> int:
        """How many rows are free."""
        return len(self._free)

    def lease(self) -> int:
        """Return a free row's number. One must be free."""
        return self._free.popleft()

    def give_back(self, row: int) -> None:
        """Return a leased row."""
        self._free.append(row)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return the row's pixels, ``[height, width, 3]``, to write into."""
        pixels: NDArray[np.uint8] = self._pixels[row]
        return pixels

    def batch(self, rows: Sequence[int], size: int, slot: int = 0) -> NDArray[np.uint8]:
        """Return ``[size, height, width, 3]`` that starts with ``rows``; what pads it up to ``size`` is arbitrary.

        A view when the rows are neighbours, else a copy that the next call for the same slot overwrites.
        """
        first = rows[0]
        if list(rows) == list(range(first, first + len(rows))):
            return self._pixels[first : first + size]
        gathered = self._gathered[slot]
        np.take(self._pixels, rows, axis=0, out=gathered[: len(rows)], mode="clip")
        return gathered[:size]
