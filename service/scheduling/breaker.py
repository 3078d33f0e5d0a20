"""When a model that keeps failing is no longer offered. Pure policy."""

from collections import Counter
from collections.abc import Hashable

_FAILURES = 3


class Breaker:
    """Opens after several batches in a row have failed in one place. A right answer to a probe closes it.

    One failure is not enough: the batch may be at fault, and its requests have been told already. Places are counted
    apart. Otherwise a GPU that fails at once would take most of the work between the other GPUs' successes.
    """

    def __init__(self) -> None:
        self._failures: Counter[Hashable] = Counter()
        self.reason: str | None = None  # why the model is not offered, or None when it is

    def failed(self, place: Hashable, reason: str) -> bool:
        """Note a failed batch. Return whether this batch opened the breaker."""
        self._failures[place] += 1
        if self._failures[place] < _FAILURES or self.reason is not None:
            return False
        self.reason = f"{self._failures[place]} batches in a row failed, the last with: {reason}"
        return True

    def succeeded(self, place: Hashable) -> None:
        """Note a batch that ran."""
        self._failures[place] = 0

    def close(self) -> None:
        """Offer the model again."""
        self._failures.clear()
        self.reason = None
