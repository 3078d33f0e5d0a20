"""The endpoints that tell of the server: its models, its health, its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.errors import Unavailable
from service.http.problems import described_problems
from service.http.schemas import Health, ModelInfo, Models, model_info
from service.metrics import CONTENT_TYPE
from service.registry import Registry

router = APIRouter()


def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


@router.get("/models")
async def models(request: Request) -> Models:
    """List every model in the repository: how it is served, or why it is not."""
    registry = _registry(request)
    failed = [
        ModelInfo(name=name, version=int(version), ready=False, reason=reason)
        for (name, _, version), reason in ((key.partition("/"), reason) for key, reason in registry.failures.items())
    ]
    return Models(models=[*map(model_info, registry), *failed])


@router.get("/models/{name}", responses=described_problems(404, 503))
async def model(name: str, request: Request) -> ModelInfo:
    """Describe the version of the model that is served by default."""
    return model_info(_registry(request).get(name))


@router.get("/health/live")
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@router.get("/health/ready", responses=described_problems(503))
async def ready(request: Request) -> Health:
    """Say whether every model is loaded, warm and right about its golden samples."""
    reason = _registry(request).unready
    if reason is not None:
        raise Unavailable(reason)
    return Health(status="ready")


@router.get("/metrics")
async def prometheus(request: Request) -> Response:
    """Give Prometheus its figures."""
    registry = _registry(request)
    registry.observe()
    registry.metrics.body_bytes_in_flight.set(request.app.state.body_bytes.held)
    return Response(registry.metrics.exposition(), media_type=CONTENT_TYPE)
