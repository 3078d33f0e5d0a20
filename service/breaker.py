"""When a model that keeps failing stops being offered. Pure policy."""

from __future__ import annotations

_FAILURES = 3


class Breaker:
    """Opens after several batches in a row have failed; a batch that succeeds closes it.

    One failure is not enough: it may be the batch's own fault, and its requests have been told already.
    """

    def __init__(self) -> None:
        self._failures = 0
        self.reason: str | None = None  # why the model is not offered, or None when it is

    def failed(self, reason: str) -> bool:
        """Note a failed batch; return whether this one opened the breaker."""
        self._failures += 1
        if self._failures < _FAILURES or self.reason is not None:
            return False
        self.reason = f"{self._failures} batches in a row failed, the last with: {reason}"
        return True

    def succeeded(self) -> None:
        """Note a batch that ran."""
        self._failures = 0
        self.reason = None
