"""The pages for people: ``/`` and ``/docs``. They hold no secret, so their files need no key."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.http.files import Files

router = APIRouter(include_in_schema=False)

_OURS = Files(directory=Path(__file__).with_name("page"))
_SWAGGER_UI = Files(directory=str(files("fastapi_offline") / "static"))  # of that package, only these files count
_READ = ["GET", "HEAD"]


@router.api_route("/", methods=_READ)
async def index(request: Request) -> Response:
    """Return the page that shows what the service does."""
    return await _OURS.get_response("index.html", request.scope)


@router.api_route("/docs", methods=_READ)
async def docs(request: Request) -> Response:
    """Return the page that describes the API."""
    return await _OURS.get_response("docs.html", request.scope)


@router.api_route("/page/swagger/{file}", methods=_READ)
async def swagger_ui(request: Request, file: str) -> Response:
    """Return a file of Swagger UI."""
    return await _SWAGGER_UI.get_response(file, request.scope)


@router.api_route("/page/{file}", methods=_READ)
async def ours(request: Request, file: str) -> Response:
    """Return a file that a page names."""
    return await _OURS.get_response(file, request.scope)
