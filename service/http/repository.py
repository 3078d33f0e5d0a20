"""The model repository over HTTP: Triton's extension of the Open Inference Protocol, and labels of versions."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from service.errors import Forbidden, InvalidParameter
from service.http.body import Body
from service.inference.traffic import Traffic
from service.open_inference.descriptions import repository_index
from service.open_inference.json_head import read_parameters
from service.runtime import Runtime

router = APIRouter(prefix="/v2/repository", include_in_schema=False)


async def _read(request: Request) -> tuple[Runtime, dict[str, Any]]:
    runtime: Runtime = request.app.state.runtime
    # A browser sends such a request for any page that the administrator looks at.
    if "origin" in request.headers and runtime.keys is None:
        raise Forbidden("a web page may ask this only where api_keys are set")
    with Body(request, runtime.settings, runtime.body_bytes) as body:
        return runtime, read_parameters(await body.whole())


@router.post("/index")
async def index(request: Request) -> list[dict[str, str]]:
    """List what the model repository holds."""
    runtime, asked = await _read(request)
    return await repository_index(runtime, only_ready=asked.get("ready") is True)


@router.post("/models/{model}/load")
async def load(request: Request, model: str) -> Response:
    """Load a model as it is in its folder now, and answer when it is served."""
    runtime, asked = await _read(request)
    if given := asked.get("parameters"):
        raise InvalidParameter(f"a model is loaded as it is in the repository: nothing reads {given!r:.200}")
    await runtime.control.load(model)
    return Response()


@router.post("/models/{model}/unload")
async def unload(request: Request, model: str) -> Response:
    """Serve a model no longer, and answer when it is gone."""
    runtime, _ = await _read(request)
    await runtime.control.unload(model)
    return Response()


@router.post("/models/{model}/labels")
async def label(request: Request, model: str) -> Response:
    """Label a model's versions, in place of the labels that it has."""
    runtime, asked = await _read(request)
    try:
        traffic = Traffic.model_validate(asked)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidParameter(wrong) from None
    await runtime.control.label(model, traffic)
    return Response()
