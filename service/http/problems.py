"""The one map from the service's errors to HTTP: problems, by RFC 9457."""

import math
import re
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import JSONResponse, Response
from starlette.types import Scope
from typing_extensions import TypedDict  # pydantic takes the one in typing from Python 3.12 on

from service import errors
from service.errors import without_folders


class Problem(TypedDict):
    """An error, as ``application/problem+json``."""

    type: Annotated[str, Field(examples=["urn:inferception:error:invalid-image"])]
    title: Annotated[str, Field(examples=["Bad Request"])]
    status: Annotated[int, Field(examples=[400])]
    detail: str


_STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidImage: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.Unsupported: 501,
    errors.BodyTimeout: 408,
    errors.BodyTooLarge: 413,
    errors.ImageTooLarge: 413,
    errors.UnsupportedType: 415,
    errors.UnsupportedEncoding: 415,
    errors.InvalidParameter: 422,
    errors.QueueFull: 429,
    errors.DeadlineUnmeetable: 429,
    errors.RateExceeded: 429,
    errors.InferenceFailed: 500,
    errors.Unavailable: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
}
_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    415: ("Accept-Encoding",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def problem_of(error: errors.ServiceError) -> Problem:
    """Describe ``error`` as a problem; its type is the error's name, a stable identifier for clients."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    return problem(_STATUS[type(error)], without_folders(str(error)), kind)


def problem(status: int, detail: str, kind: str | None = None) -> Problem:
    """Describe an HTTP status; without ``kind`` the status says it all."""
    return Problem(
        type=f"urn:inferception:error:{kind}" if kind else "about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
    )


def path_of(scope: Scope) -> str:
    """Return the path as routes know it, without the prefix that a proxy removes or should have removed."""
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", ""))


def problem_response(scope: Scope, body: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return the HTTP response that carries ``body``, in the form that clients of the request's path understand."""
    if not path_of(scope).startswith("/v2"):
        return JSONResponse(body, body["status"], headers, "application/problem+json")
    # The Open Inference Protocol has a form of its own, and 400 for all that a client got wrong in a body.
    status = HTTPStatus.BAD_REQUEST if body["status"] == HTTPStatus.UNPROCESSABLE_ENTITY else body["status"]
    return JSONResponse({"error": body["detail"]}, status, headers)


def described_headers(*names: str) -> dict[str, Any]:
    """Return what OpenAPI needs to know of an answer's headers: those of every answer, and ``names``."""
    return {name: {"schema": {"type": "string"}} for name in ("X-Request-Id", "Server-Timing", *names)}


def described_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI needs to know of the problems that a route may answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "headers": described_headers(*_HEADERS.get(status, ())),
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in statuses
    }


def headers_of(error: errors.ServiceError) -> dict[str, str]:
    """Return the headers that ``error`` asks for; ``Retry-After`` is whole seconds and at least one."""
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, errors.Draining | errors.BodyTimeout):
        return {"Connection": "close"}
    if isinstance(error, errors.Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.UnsupportedEncoding):
        return {"Accept-Encoding": "gzip, deflate"}
    return {}
