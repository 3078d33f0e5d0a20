"""Lets in whoever has an API key.

This is middleware and no dependency, because FastAPI serves its description without dependencies.
"""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Trace
from service.auth import Keys
from service.errors import ServiceError
from service.http.problems import headers_of, path_of, problem_of, problem_response

# Load balancers have no key. A browser can send one only once a page has asked for it.
_OPEN = re.compile(r"/|/docs|/page/.*|/health/.*|/v2/health/.*")
_ADMIN = ("/metrics", "/live", "/openapi.json", "/v2/repository/models/")


@dataclass(frozen=True)
class Door:
    """Asks every request for its key, but for health checks and for the pages."""

    app: ASGIApp
    keys: Keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = path_of(scope)
        if scope["type"] == "http" and not _OPEN.fullmatch(path):
            trace: Trace = scope["state"]["trace"]
            try:
                self.keys.identify(trace, Headers(scope=scope))
                if path.startswith(_ADMIN):
                    self.keys.demand_admin(trace)
                self.keys.count(trace)
            except ServiceError as error:
                await problem_response(scope, problem_of(error), headers_of(error))(scope, receive, send)
                return
        await self.app(scope, receive, send)
