"""The Open Inference Protocol over HTTP, under ``/v2``, with Triton's extensions.

Clients send any Content-Type or none. The header Inference-Header-Content-Length alone says whether binary tensors
follow the JSON.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from service.access import Trace
from service.errors import InvalidParameter, Unavailable, Unsupported
from service.http.body import Body
from service.http.coding import compressed
from service.http.disconnect import ends_with_client
from service.open_inference import descriptions, json_head
from service.open_inference.descriptions import number
from service.open_inference.infer import InferRequest, bare_request
from service.predict import Question
from service.runtime import Runtime

# The protocol has a description of its own, so ours leaves it out.
router = APIRouter(prefix="/v2", include_in_schema=False)

_HEAD_BYTES = "Inference-Header-Content-Length"


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


@router.get("")
@router.get("/")
async def server() -> dict[str, Any]:
    """Describe the server."""
    return descriptions.server()


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Say that the process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """Say whether all models are ready."""
    if reason := _runtime(request).registry.unready:
        raise Unavailable(reason)
    return {"ready": True}


@router.get("/models")
async def models(request: Request) -> dict[str, list[str]]:
    """List the models' names, as KServe does."""
    return {"models": sorted({one.name for one in _runtime(request).registry})}


@router.get("/models/stats")
async def all_statistics(request: Request) -> dict[str, Any]:
    """Return the statistics of every version."""
    return {"model_stats": [descriptions.statistics(one) for one in _runtime(request).registry]}


@router.get("/models/{model}/stats")
@router.get("/models/{model}/versions/{version}/stats")
async def statistics(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Return the statistics of one version."""
    return {"model_stats": [descriptions.statistics(_runtime(request).registry.find(model, number(version)))]}


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Describe a model's tensors."""
    registry = _runtime(request).registry
    return descriptions.metadata(registry.find(model, number(version)), registry)


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(request: Request, model: str, version: str | None = None) -> Response:
    """Say whether a model answers."""
    reason = descriptions.unready(_runtime(request).registry, model, version)
    if reason is not None:  # Triton has this status for an unknown model, too
        return JSONResponse({"error": f"Model version not ready: {reason}"}, 400)
    return JSONResponse({"name": model, "ready": True})


@router.get("/models/{model}/config")
@router.get("/models/{model}/versions/{version}/config")
async def configuration(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Describe how a model is run."""
    runtime = _runtime(request)
    return descriptions.configuration(runtime.registry.find(model, number(version)), runtime.settings)


@router.post("/models/{model}/infer")
@router.post("/models/{model}/versions/{version}/infer")
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Classify the images of a request, all or none."""
    runtime: Runtime = request.app.state.runtime
    trace: Trace = request.state.trace
    asked_at = asyncio.get_running_loop().time()
    # The body may ask for the longest deadline, so nothing is refused before it that would be in time for that.
    question = runtime.predict.question(model, number(version), runtime.settings.max_timeout_ms, trace.best_priority)
    trace.model = question.classifier.name
    async with question.asked():
        with Body(request, runtime.settings, runtime.body_bytes) as body:
            content = memoryview(await body.whole())
            trace.finished("read")
            asked = _read(request, content, question)
            timeout_ms, priority = asked.terms()
            question.on(*runtime.predict.terms(asked_at, timeout_ms, max(priority, trace.best_priority)))
            wanted = asked.wanted()
            async with ends_with_client(request.receive):
                given = await asked.answer(question, wanted, descriptions.most_images(runtime.settings))
            trace.stages |= question.stages
            return _response(request, *json_head.write(question.classifier, asked.id, given, binary=wanted.binary))


def _read(request: Request, content: memoryview, question: Question) -> InferRequest:
    given = request.headers.get(_HEAD_BYTES)
    if given is not None and not (given.isascii() and given.isdigit()):
        raise InvalidParameter(f"{_HEAD_BYTES} is {given!r:.50}: it must be a whole number of bytes")
    head_bytes = None if given is None else int(given[:19])
    if head_bytes == 0 or not content:
        size = question.classifier.manifest.input
        return bare_request(content, size.height, size.width)
    return json_head.read(content, head_bytes)


def _response(request: Request, content: bytes, head_bytes: int | None) -> Response:
    media_type = "application/json" if head_bytes is None else "application/octet-stream"
    headers = {} if head_bytes is None else {_HEAD_BYTES: str(head_bytes)}
    coding, content = compressed(content, request.headers.get("accept-encoding", ""))
    if coding:
        headers["Content-Encoding"] = coding
    return Response(content, headers=headers, media_type=media_type)


@router.get("/systemsharedmemory/status")
@router.get("/cudasharedmemory/status")
async def shared_memory() -> list[Any]:
    """List the regions of shared memory, of which there are none."""
    return []


@router.post("/systemsharedmemory/{rest:path}")
@router.post("/cudasharedmemory/{rest:path}")
async def no_shared_memory(rest: str) -> Response:
    """Say that tensors are sent in bodies."""
    raise Unsupported("shared memory is not supported; send tensors in the body")


@router.api_route("/logging", methods=["GET", "POST"])
@router.api_route("/trace/setting", methods=["GET", "POST"])
@router.api_route("/models/{model}/trace/setting", methods=["GET", "POST"])
async def no_settings() -> Response:
    """Say that logs and traces are set at the start."""
    raise Unsupported("logs and traces are set by the server's settings")
