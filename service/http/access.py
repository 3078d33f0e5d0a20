"""Pure ASGI middleware round every request: its id, its stages, its ``Server-Timing``, its metrics, its log line.

Starlette's BaseHTTPMiddleware would hide from a route that its client has gone.
"""

import logging
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Trace, request_id
from service.http.problems import problem, problem_response
from service.runtime import Runtime

PROBES = ("/health", "/live", "/metrics", "/v2/health")  # asked so often that their lines would hide all others
_CLIENT_GONE = 499  # nginx' number for a client that left before its answer


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
        trace = Trace(request_id(given))
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
        by_key = self.runtime.keys is not None
        trace.count(self.runtime.metrics, _path(scope), status, by_key=by_key)

    def _log(self, scope: Scope, trace: Trace, status: int) -> None:
        level = logging.DEBUG if _path(scope).startswith(PROBES) else logging.INFO
        trace.log(level, scope["method"], scope["path"], status)


def _path(scope: Scope) -> str:
    """Return the path of the route, so that unknown paths are one."""
    return str(getattr(scope.get("route"), "path", "unknown"))
