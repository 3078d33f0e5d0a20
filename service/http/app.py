"""Puts the application together: routes, middleware, errors. Any ASGI server can run it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from service import tracing
from service.errors import ClientGone, InvalidParameter, ServiceError, Unavailable
from service.http import classify, open_inference, pages, repository, status
from service.http.access import PROBES, Access
from service.http.door import Door
from service.http.problems import (
    described_headers,
    described_problems,
    headers_of,
    problem,
    problem_of,
    problem_response,
)
from service.runtime import Runtime

# FastAPI reports requests as spans and nothing else: the rest is in our metrics, our log and service.tracing's spans.
_TELEMETRY: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"].removeprefix(scope.get("root_path", "")).startswith(PROBES),
}


def create_app(runtime: Runtime, dependencies: Sequence[params.Depends] = ()) -> FastAPI:
    """Return the ASGI application, whose lifespan enters ``runtime``. It answers 503 until the models are loaded.

    FastAPI calls ``dependencies`` before every route. Requests are traced if ``service.tracing`` was configured before.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with runtime:
            yield

    keys = runtime.keys
    described = described_problems(405, 431, 500)
    if keys:
        dependencies = [*dependencies, Depends(HTTPBearer(auto_error=False))]  # for the description alone
        described |= described_problems(401, 403, 429)
    app = FastAPI(
        title="Inferception",
        description="Classifies images with the Inception family.",
        lifespan=lifespan,
        dependencies=dependencies,
        docs_url=None,  # FastAPI's own page needs a CDN
        redoc_url=None,
        redirect_slashes=False,
        responses={200: {"headers": described_headers()}, **described},
        telemetry={**_TELEMETRY, "tracing": tracing.is_on()},
    )
    app.state.runtime = runtime
    app.include_router(classify.router)
    app.include_router(status.router)
    app.include_router(open_inference.router)
    app.include_router(pages.router)
    app.include_router(repository.router)
    if keys:
        app.add_middleware(Door, keys=keys)
    app.add_middleware(Access, runtime=runtime)
    if runtime.settings.cors_origins:
        app.add_middleware(  # the last one is the outermost: what a page may not read, it can't report
            CORSMiddleware,
            allow_origins=runtime.settings.cors_origins.split(","),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Server-Timing", "Retry-After"],
        )
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_invalid_parameter)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ClientGone)(_client_gone)
    app.exception_handler(MemoryError)(_no_memory)
    return app


async def _service_error(request: Request, error: ServiceError) -> Response:
    return problem_response(request.scope, problem_of(error), headers_of(error))


async def _invalid_parameter(request: Request, error: RequestValidationError) -> Response:
    # A place is the kind of parameter, its name, and for one of several types the name of the type.
    wrong = "; ".join(f"{problem['loc'][:2][-1]}: {problem['msg']}" for problem in error.errors())
    return problem_response(request.scope, problem_of(InvalidParameter(wrong)))


async def _http_error(request: Request, error: HTTPException) -> Response:
    return problem_response(request.scope, problem(error.status_code, error.detail), dict(error.headers or {}))


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads this answer, but the log does


async def _no_memory(request: Request, __: Exception) -> Response:
    return problem_response(request.scope, problem_of(Unavailable("the server has no memory left")))
