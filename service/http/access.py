"""Pure ASGI middleware round every request: its id, its stages, its ``Server-Timing``, its metrics, its log line.

Not Starlette's BaseHTTPMiddleware, which hides from a handler that its client has gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.registry import Registry

log = logging.getLogger("inferception.access")

PROBES = ("/health", "/metrics")  # paths that are asked so often that they would drown the rest
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CLIENT_GONE = 499  # nginx' number for a client that left before its answer


@dataclass
class Trace:
    """What a handler tells of its request; it is ``request.state.trace``. Times are on ``time.perf_counter``."""

    request_id: str
    arrived: float
    model: str = ""
    answered: int = 0  # images
    stages: dict[str, float] = field(default_factory=dict)  # seconds


class Access:
    """Observes every request and its answer."""

    def __init__(self, app: ASGIApp, registry: Registry) -> None:
        self._app = app
        self._registry = registry
        self._process, self._numbers = secrets.token_hex(4), itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        trace = Trace(given if _SAFE_ID.fullmatch(given) else self._new_id(), time.perf_counter())
        scope.setdefault("state", {})["trace"] = trace
        status = _CLIENT_GONE

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                trace.stages["total"] = time.perf_counter() - trace.arrived
                timing = ", ".join(f"{k};dur={v * 1e3:.2f}" for k, v in trace.stages.items())
                message["headers"] = [  # not in place: they are the response's own, which may be sent again
                    *message["headers"],
                    (b"x-request-id", trace.request_id.encode()),
                    (b"server-timing", timing.encode()),
                ]
                if self._registry.draining:
                    MutableHeaders(scope=message)["Connection"] = (
                        "close"  # or the next request would meet a closed door
                    )
            await send(message)
            if message["type"] == "http.response.body":
                await asyncio.sleep(0)  # uvloop writes once all that is ready has run: let the answer go first

        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._record(scope, trace, status)

    def _new_id(self) -> str:
        return f"{self._process}{next(self._numbers):08x}"

    def _record(self, scope: Scope, trace: Trace, status: int) -> None:
        metrics = self._registry.metrics
        path: str = getattr(scope.get("route"), "path", "unknown")
        metrics.requests.labels(trace.model, path, status).inc()
        if trace.model:
            if trace.answered:
                metrics.images.labels(trace.model, "ok").inc(trace.answered)
            for stage, seconds in trace.stages.items():
                metrics.stage.labels(stage).observe(seconds)
        level = logging.DEBUG if path.startswith(PROBES) else logging.INFO
        if log.isEnabledFor(level):
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "model": trace.model,
                "request_id": trace.request_id,
                **{f"{stage}_ms": round(seconds * 1e3, 2) for stage, seconds in trace.stages.items()},
            }
            log.log(level, "request", extra={"fields": fields})
