"""Pure ASGI middleware round every request: its id, its stages, its ``Server-Timing``, its metrics, its log line.

Starlette's BaseHTTPMiddleware would hide from a route that its client has gone.
"""

import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import problem, problem_response
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority

log = logging.getLogger("inferception.access")

PROBES = (
    "/health",
    "/live",
    "/metrics",
    "/v2/health",
)  # paths that are asked so often that their lines would hide all others
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CLIENT_GONE = 499  # nginx' number for a client that left before its answer


@dataclass
class Trace:
    """What a route notes of its request. A route finds it as ``request.state.trace``."""

    request_id: str
    arrived: float = field(default_factory=time.perf_counter)
    model: str = ""
    key: str = ""  # the name of the API key
    best_priority: Priority = Priority.HIGH  # that the key allows
    stages: dict[str, float] = field(default_factory=dict)  # seconds

    @property
    def so_far(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.arrived

    def finished(self, stage: str) -> None:
        """Note that the stage which began at the request's arrival has ended."""
        self.stages[stage] = self.so_far


@dataclass(frozen=True)
class Access:
    """Observes every request and its answer."""

    app: ASGIApp
    runtime: Runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        trace = Trace(given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8))
        scope.setdefault("state", {})["trace"] = trace
        status = _CLIENT_GONE

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                trace.finished("total")
                self._count(scope, trace, status)
                # The list of headers belongs to the response, which may be sent again.
                headers = MutableHeaders(raw=list(message["headers"]))
                headers["X-Request-Id"] = trace.request_id
                headers["Server-Timing"] = ", ".join(f"{k};dur={v * 1e3:.2f}" for k, v in trace.stages.items())
                if self.runtime.registry.draining:
                    headers["Connection"] = "close"  # the next request would find the door closed
                message["headers"] = headers.raw
            await send(message)

        try:
            await self.app(scope, receive, send_observed)
        except Exception:
            if "total" not in trace.stages:
                # The traceback is for the server's log alone, where the error goes from here.
                unexpected = problem_response(scope, problem(500, "unexpected error; the server's log has more"))
                await unexpected(scope, receive, send_observed)
            raise
        finally:
            if "total" not in trace.stages:  # nobody was there to answer
                self._count(scope, trace, status)
            self._log(scope, trace, status)

    def _count(self, scope: Scope, trace: Trace, status: int) -> None:
        """Count a request before its answer is sent: its model may be retired once the answer is known."""
        self.runtime.metrics.requests.labels(trace.model, _path(scope), status).inc()
        if self.runtime.settings.api_keys:
            self.runtime.metrics.key_requests.labels(trace.key, status).inc()
        if trace.model:
            for stage in ("read", "total"):
                if stage in trace.stages:
                    self.runtime.metrics.stage.labels(stage).observe(trace.stages[stage])

    def _log(self, scope: Scope, trace: Trace, status: int) -> None:
        level = logging.DEBUG if _path(scope).startswith(PROBES) else logging.INFO
        if log.isEnabledFor(level):
            fields = {
                "method": scope["method"],
                "path": quote(scope["path"]),  # a space would begin what looks like another field
                "status": status,
                "model": trace.model,
                "request_id": trace.request_id,
                **({"key": trace.key} if trace.key else {}),
                **{f"{stage}_ms": round(seconds * 1e3, 2) for stage, seconds in trace.stages.items()},
            }
            log.log(level, "request", extra={"fields": fields})


def _path(scope: Scope) -> str:
    """Return the path of the route, so that unknown paths are one."""
    return str(getattr(scope.get("route"), "path", "unknown"))
