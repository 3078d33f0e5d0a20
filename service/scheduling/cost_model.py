"""How long a batch takes, learned: t(n) = scale * (a + b * n) seconds.

``a`` and ``b`` come from the warm-up. What then runs only moves ``scale``, the median of the last actual/predicted
ratios: it follows a machine that slows down under decoding or a neighbour, and one odd batch can't move it.
"""

import statistics
from collections import deque
from collections.abc import Mapping, Sequence

_WINDOW = 16


class CostModel:
    """Predicted seconds of a batch of n images, for the fixed batch ``sizes``."""

    def __init__(self, warm_up: Mapping[int, float], sizes: Sequence[int] = ()) -> None:
        """Fit from {batch size: seconds}; one size alone is taken as proportional.

        Batches have the sizes that were warmed up, unless others are given.
        """
        self.sizes: Sequence[int] = sorted(sizes or warm_up)
        if len(warm_up) == 1:
            ((size, seconds),) = warm_up.items()
            self._a, self._b = 0.0, seconds / size
        else:
            self._b, self._a = statistics.linear_regression(list(warm_up), list(warm_up.values()))
        if self._a < 0:  # noise around proportional cost; a batch can't be had for less than nothing
            self._a, self._b = 0.0, sum(warm_up.values()) / sum(warm_up)
        self._ratios: deque[float] = deque([1.0], maxlen=_WINDOW)
        self._scale = 1.0

    def __repr__(self) -> str:
        return f"CostModel(a={self._a:.4f}, b={self._b:.4f}, scale={self._scale:.2f})"

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        self._ratios.append(seconds / (self._a + self._b * size))
        self._scale = statistics.median(self._ratios)

    def seconds(self, size: int) -> float:
        """Return the predicted time of one batch of ``size``."""
        return self._scale * (self._a + self._b * size)

    def total(self, count: int) -> float:
        """Return the predicted time of ``count`` images in the cheapest batches."""
        largest = self.sizes[-1]
        full, rest = divmod(count, largest)
        return full * self.seconds(largest) + (self._remainder(rest)[1] if rest else 0.0)

    def next_size(self, count: int) -> int:
        """Return the batch size to run first for ``count`` > 0 images: larger than ``count`` means to pad."""
        largest = self.sizes[-1]
        return largest if count >= largest else self._remainder(count)[0]

    def _remainder(self, count: int) -> tuple[int, float]:
        """Weigh padding to the next size against a full smaller batch and another remainder: (size, seconds of all)."""
        padded = next(size for size in self.sizes if size >= count)
        best = (padded, self.seconds(padded))
        if padded > count and self.sizes[0] <= count:
            full = max(size for size in self.sizes if size <= count)
            split = self.seconds(full) + self._remainder(count - full)[1]
            if split < best[1]:
                best = (full, split)
        return best
