"""Which of several models runs next: each gets the same device time.

This is start-time fair queueing (Goyal et al. 1996). Each model has a virtual time, which grows by the seconds that its
batches take, and the model with the least virtual time runs next. A model that was idle joins at the present virtual
time, so that it is neither punished nor owed anything.

Least slack first would be simpler. But the head of a flooded queue always has the least slack, and requests for a quiet
model would then wait as long as those of the flood.
"""

import math
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_IN_USE_S = 10.0  # a model that ran within this time is in use


class FairShare(Generic[K]):
    """The virtual times of models, by any key."""

    def __init__(self) -> None:
        self._virtual: dict[K, float] = {}
        self._ran_at: dict[K, float] = {}
        self._present = 0.0

    def add(self, key: K) -> None:
        """Let one more model take part."""
        self._virtual[key], self._ran_at[key] = self._present, -math.inf

    def remove(self, key: K) -> None:
        """Forget a model."""
        del self._virtual[key], self._ran_at[key]

    def next(self, ready: Iterable[K]) -> K | None:
        """Return which of the ``ready`` models may run now, or None of no models."""
        return min(ready, key=lambda key: max(self._virtual[key], self._present), default=None)

    def charge(self, key: K, seconds: float, now: float) -> None:
        """Note a batch that starts ``now`` and takes ``seconds`` of one slot's time."""
        self._present = max(self._virtual[key], self._present)
        self._virtual[key] = self._present + seconds
        self._ran_at[key] = now

    def in_use(self, key: K, now: float) -> bool:
        """Return whether the model ran of late."""
        return now - self._ran_at[key] < _IN_USE_S
