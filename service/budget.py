"""Bounds on what many requests hold together: bytes of bodies in memory, pixels being decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """An amount of something that its holders share."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.held = 0
        self._changed = threading.Condition()

    def try_take(self, amount: int) -> bool:
        """Take ``amount`` if it is there now; return whether it was. Give it back with ``give_back``."""
        with self._changed:
            if self.held + amount > self.amount:
                return False
            self.held += amount
            return True

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        with self._changed:
            self.held -= amount
            self._changed.notify_all()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold ``amount``, waiting in this thread until it is there; one that can never be is held alone."""
        amount = min(amount, self.amount)
        with self._changed:
            self._changed.wait_for(lambda: self.held + amount <= self.amount)
            self.held += amount
        try:
            yield
        finally:
            self.give_back(amount)
