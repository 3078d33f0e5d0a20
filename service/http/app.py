"""Puts the application together: routes, middleware, errors, and the models' life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service import tracing
from service.budget import Budget
from service.errors import ServiceError
from service.http import classify, status
from service.http.access import PROBES, Access
from service.http.problems import headers_of, problem, problem_of, problem_response
from service.registry import Registry
from service.settings import Settings

# Spans of requests alone: what else FastAPI could report is in our metrics, our log and service.tracing's spans.
_TELEMETRY: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"].startswith(PROBES),
}


def create_app(settings: Settings, registry: Registry) -> FastAPI:
    """Return the ASGI application. It answers 503 until ``registry`` is loaded, and closes it when it ends.

    It reports spans if ``service.tracing`` was configured before.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        registry.close()

    app = FastAPI(
        title="Inferception",
        description="Classifies images with the Inception family.",
        lifespan=lifespan,
        # Not include_router, which would match every request once more.
        routes=[*classify.router.routes, *status.router.routes],
        redoc_url=None,
        telemetry={**_TELEMETRY, "tracing": tracing.is_on()},
    )
    app.add_middleware(Access, registry=registry)
    app.state.settings, app.state.registry = settings, registry
    app.state.body_bytes = Budget(settings.max_body_bytes_in_flight)
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ClientDisconnect)(_client_gone)
    app.exception_handler(Exception)(_unexpected_error)
    return app


async def _service_error(_: Request, error: ServiceError) -> Response:
    return problem_response(problem_of(error), headers_of(error))


async def _http_error(_: Request, error: HTTPException) -> Response:
    return problem_response(problem(error.status_code, error.detail), dict(error.headers or {}))


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the access log does


async def _unexpected_error(_: Request, __: Exception) -> Response:
    # Starlette raises it again once this is sent, so the server's log has the traceback and the client has none.
    return problem_response(problem(500, "unexpected error; the server's log has more"))
