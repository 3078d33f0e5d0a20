"""When a model that keeps failing stops being offered. Pure policy."""

from __future__ import annotations

from collections import Counter

_FAILURES = 3


class Breaker:
    """Opens after several batches in a row have failed on one device; a good answer to a probe closes it.

    One failure is not enough: it may be the batch's own fault, and its requests have been told already. Devices are
    counted apart, or one that fails at once would take most of the work between the others' successes.
    """

    def __init__(self) -> None:
        self._failures: Counter[int] = Counter()
        self.reason: str | None = None  # why the model is not offered, or None when it is

    def failed(self, reason: str, device: int = 0) -> bool:
        """Note a failed batch; return whether this one opened the breaker."""
        self._failures[device] += 1
        if self._failures[device] < _FAILURES or self.reason is not None:
            return False
        self.reason = f"{self._failures[device]} batches in a row failed, the last with: {reason}"
        return True

    def succeeded(self, device: int = 0) -> None:
        """Note a batch that ran."""
        self._failures[device] = 0

    def close(self) -> None:
        """Offer the model again."""
        self._failures.clear()
        self.reason = None
