"""A bound on what many requests hold together: bytes of bodies in memory."""

from dataclasses import dataclass


@dataclass
class Budget:
    """An amount of something that its holders share. For the event loop's thread."""

    amount: int
    held: int = 0

    def try_take(self, amount: int) -> bool:
        """Take ``amount`` if it is there now; return whether it was. Give it back with ``give_back``."""
        if self.held + amount > self.amount:
            return False
        self.held += amount
        return True

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        self.held -= amount
