"""uvicorn with a drain: the first signal lets accepted work finish, the second exits at once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from types import FrameType

import uvicorn

log = logging.getLogger("inferception")


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT: call ``drain``, serve on for ``grace_s`` while load balancers notice, then stop.

    Stopping is uvicorn's: no new connections, and every request that was accepted is answered.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], grace_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._grace_s = grace_s
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. uvicorn would raise it again after stopping; a drain that ends well is exit code 0."""
        if self._draining:
            os._exit(128 + sig)
        self._draining = True
        self._drain()
        log.info("draining: new work gets 503; a second signal exits at once")
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._grace_s, self._stop)  # wakes the loop up, too

    def _stop(self) -> None:
        self.should_exit = True
