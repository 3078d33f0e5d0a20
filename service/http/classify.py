"""``POST /classify``: finds the model, reads the body, asks the classifier, and describes the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.classifier import Classifier
from service.errors import DeadlineExceeded, Overloaded, ServiceError
from service.http.access import Trace
from service.http.body import Body, File
from service.http.parameters import Parameters
from service.http.problems import described_problems, problem_of
from service.http.schemas import FileError, FileResult, ImageResult, Results, image_result, json_response
from service.metrics import Metrics
from service.registry import Registry
from service.scheduling.batch_queue import Priority
from service.settings import Settings

_DESCRIPTION = {
    "parameters": Parameters.openapi(),
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    },
}


class _DirectRoute(APIRoute):
    """A documented route whose endpoint takes the request and returns the response: FastAPI has nothing to solve.

    Its stacks for dependencies and a second net for errors are a fifth of what a refusal costs.
    """

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


router = APIRouter(route_class=_DirectRoute)


@router.post(
    "/classify",
    response_model=ImageResult | Results,
    responses=described_problems(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=_DESCRIPTION,
)
async def classify(request: Request) -> Response:
    """Classify an image sent as the raw body, or the `file` parts of a multipart body."""
    registry: Registry = request.app.state.registry
    settings: Settings = request.app.state.settings
    asked = Parameters.of(request)
    timeout_ms = asked.timeout_ms or asked.timeout_header_ms or settings.default_timeout_ms
    timeout_s = min(timeout_ms, settings.max_timeout_ms) / 1e3
    classifier = registry.get(asked.model, asked.version)
    trace: Trace = request.state.trace
    trace.model = classifier.manifest.name
    query = _Query(
        classifier,
        registry.metrics,
        trace,
        top_k=asked.top_k or min(5, len(classifier.labels)),
        deadline=asyncio.get_running_loop().time() + timeout_s,
        priority=Priority[asked.priority.upper()],
    )
    try:
        async with asyncio.timeout_at(query.deadline) as patience:
            classifier.check_admission(query.deadline, query.top_k, query.priority)  # before a body is read
            with Body(request, settings, request.app.state.body_bytes) as body:
                files = await body.files()
                trace.stages["read"] = time.perf_counter() - trace.arrived
                with _ends_with_client(request, patience):
                    answer = await (query.one(files[0]) if len(files) == 1 else query.several(files))
                return json_response(answer)
    except ServiceError as error:
        query.count(error)
        raise
    except (TimeoutError, ClientDisconnect):
        if await request.is_disconnected():
            registry.metrics.disconnected.labels(trace.model).inc()
            raise ClientDisconnect from None
        late = DeadlineExceeded(f"no answer within {timeout_s:g} s")
        query.count(late)
        raise late from None


@dataclass(frozen=True)
class _Query:
    """What one request asks of a classifier, and where to note how it went."""

    classifier: Classifier
    metrics: Metrics
    trace: Trace
    top_k: int
    deadline: float
    priority: Priority

    async def one(self, file: File) -> ImageResult:
        """Classify a file, and report its stages."""
        answer = await self.classifier.classify(
            file.data, top_k=self.top_k, deadline=self.deadline, priority=self.priority
        )
        self.trace.answered += 1
        self.trace.stages.update(decode=answer.decode_s, queue=answer.queue_s, infer=answer.infer_s)
        return image_result(self.classifier, answer, time.perf_counter() - self.trace.arrived)

    async def several(self, files: list[File]) -> Results:
        """Classify every file on its own: one that fails has its error in its place."""

        async def entry(file: File) -> FileResult | FileError:
            try:
                return {"file": file.name, **await self.one(file)}
            except ServiceError as error:
                self.count(error)
                return {"file": file.name, "error": problem_of(error)}

        return {"results": await asyncio.gather(*map(entry, files))}

    def count(self, error: ServiceError) -> None:
        """Count an image that got no answer."""
        self.metrics.images.labels(self.trace.model, type(error).__name__).inc()
        if isinstance(error, Overloaded):
            self.metrics.shed.labels(self.trace.model, type(error).__name__).inc()
        elif isinstance(error, DeadlineExceeded):
            self.metrics.expired.labels(self.trace.model).inc()


@contextmanager
def _ends_with_client(request: Request, patience: asyncio.Timeout) -> Iterator[None]:
    """Let ``patience`` run out at once when the client goes: both ends of a request take the same path."""

    def end(_: asyncio.Future[None]) -> None:
        with suppress(RuntimeError):  # it has just run out by itself
            patience.reschedule(0.0)

    # Not a task that receives until the client has gone: an idle request would wait for the making of it.
    lost: asyncio.Future[None] = request.state.connection_lost
    lost.add_done_callback(end)
    try:
        yield
    finally:
        lost.remove_done_callback(end)
