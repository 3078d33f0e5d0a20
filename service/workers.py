"""Threads that call what they are given, in the order in which it came.

Not a ThreadPoolExecutor, which makes a future for each call: a request of an idle server would wait for that, and
nobody would read it, since work here tells the event loop its result by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger("inferception")


class Workers:
    """``count`` threads, named ``name`` and a number."""

    def __init__(self, count: int, name: str) -> None:
        self._calls = SimpleQueue[Callable[[], None] | None]()
        # Daemons: a start that fails ends the process without closing them.
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Call ``work`` in a thread, after what was submitted before; what it raises is logged."""
        self._calls.put(work)

    def close(self) -> None:
        """Wait until all work is done, and stop the threads. What is submitted later is never called."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            try:
                work()
            except BaseException:
                log.exception("work in the thread %s failed", threading.current_thread().name)
            del work  # or what it holds stays in memory until the next comes
