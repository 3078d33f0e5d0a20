"""The endpoints that tell of the server: its models, its health, its metrics. None of them changes anything."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.errors import Unavailable
from service.http.problems import described_problems
from service.http.schemas import Health, ModelInfo, Models, model_info
from service.runtime import Runtime

router = APIRouter()


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


@router.get("/models")
async def models(request: Request) -> Models:
    """List every model in the repository: how it is served, or why it is not."""
    registry = _runtime(request).registry
    failed = [
        ModelInfo(name=name, version=version, ready=False, reason=reason)
        for (name, version), reason in registry.failures.items()
    ]
    return Models(models=[*map(model_info, registry), *failed])


@router.get("/models/{name}", responses=described_problems(404, 503))
async def model(name: str, request: Request) -> ModelInfo:
    """Describe the version of the model that is served by default."""
    return model_info(_runtime(request).registry.find(name))


@router.get("/health/live")
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@router.get("/health/ready", responses=described_problems(503))
async def ready(request: Request) -> Health:
    """Say whether every model is loaded, warm and right about its golden samples."""
    reason = _runtime(request).registry.unready
    if reason is not None:
        raise Unavailable(reason)
    return Health(status="ready")


@router.get("/metrics")
async def prometheus(request: Request) -> Response:
    """Give Prometheus its figures."""
    return Response(_runtime(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
