"""Threads that take work in turn.

Less than a ThreadPoolExecutor: results go to the event loop by themselves, so nobody asks its futures, and every
request of an idle server would wait until one is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger("inferception")


class Workers:
    """``count`` threads with this name and a number."""

    def __init__(self, count: int, name: str) -> None:
        self._work = SimpleQueue[Callable[[], None] | None]()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Call ``work`` in a thread, after what was submitted before; what it raises is logged."""
        self._work.put(work)

    def close(self) -> None:
        """Wait until all work is done, and stop the threads. What is submitted later is never called."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("a thread's work failed")
            del work  # and the image that it holds
