"""The endpoints that tell of the server: its models, its health, its metrics. None of them changes anything."""

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from service.errors import Unavailable, without_folders
from service.http.files import Files
from service.http.problems import described_problems
from service.http.schemas import Figure, Health, Live, ModelInfo, Models, model_info
from service.runtime import Runtime

router = APIRouter()
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_LIVE = {
    "inferception_batch_size_count",
    "inferception_batch_size_sum",
    "inferception_images_total",
    "inferception_queue_depth",
    "inferception_shed_total",
    "inferception_stage_seconds_bucket",
    "inferception_stage_seconds_count",
    "process_resident_memory_bytes",
}


def _get(path: str, *problems: int, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Route GET, and HEAD as GET without a body, to an endpoint that may answer ``problems``."""

    def add(endpoint: Endpoint) -> Endpoint:
        options["responses"] = described_problems(*problems)
        # FastAPI's GET is not HEAD too. A route of both has no right name in OpenAPI, so one answers and one describes.
        router.api_route(path, methods=["GET", "HEAD"], include_in_schema=False, **options)(endpoint)
        return router.get(path, **options)(endpoint)

    return add


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


@_get("/models", 503)
async def models(request: Request) -> Models:
    """List every model in the repository: how it is served, or why it is not."""
    registry = _runtime(request).registry
    failed = [
        ModelInfo(name=name, version=version, ready=False, reason=without_folders(reason))
        for (name, version), reason in registry.failures.items()
    ]
    return Models(models=[*map(model_info, registry), *failed])


@_get("/models/{name}", 404, 422, 503)
async def model(name: str, request: Request) -> ModelInfo:
    """Describe the version of the model that is served by default."""
    return model_info(_runtime(request).registry.find(name))


@_get("/models/{name}/golden/{number}", 404, 422, 503, response_class=FileResponse)
async def golden(
    request: Request,
    name: str,
    number: Annotated[int, Path(ge=0, description="of the sample, from 0")],
    version: Annotated[int | None, Query(ge=1, description="the version served by default if left out")] = None,
) -> Response:
    """Return the picture of a golden sample."""
    classifier = _runtime(request).registry.find(name, version)
    samples = classifier.manifest.golden
    if number >= len(samples):
        raise HTTPException(404, f"{classifier!r} has {len(samples)} golden samples, and their numbers begin at 0")
    pictures = Files(directory=classifier.folder, check_dir=False, follow_symlink=True)
    return await pictures.get_response(samples[number].file, request.scope)


@_get("/live", response_model=Live)
async def figures(request: Request) -> Response:
    """Return the figures of which the page at `/` draws plots: some of those at `/metrics`, as JSON."""
    samples = (sample for family in _runtime(request).metrics.registry.collect() for sample in family.samples)
    by_name: dict[str, list[Figure]] = {name: [] for name in _LIVE}
    for sample in samples:
        if sample.name in _LIVE:
            by_name[sample.name].append({"labels": sample.labels, "value": sample.value})
    return JSONResponse(Live(time_s=time.monotonic(), figures=by_name))


@_get("/health/live")
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@_get("/health/ready", 503)
async def ready(request: Request) -> Health:
    """Say whether every model is loaded, warm and right about its golden samples."""
    reason = _runtime(request).registry.unready
    if reason is not None:
        raise Unavailable(reason)
    return Health(status="ready")


@_get("/metrics", 503, response_class=PlainTextResponse)
async def prometheus(request: Request) -> Response:
    """Give Prometheus its figures."""
    return Response(_runtime(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
