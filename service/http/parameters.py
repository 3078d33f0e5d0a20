"""What a request may ask for, in its query or in its headers.

Read here by one model: FastAPI would read one parameter after another, and every idle request would wait for it. What
was asked before is not even read again.
"""

from __future__ import annotations

import functools
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from service.errors import InvalidParameter

_TIMEOUT = "x-request-timeout-ms"
_PRIORITY = "x-priority"
_HEADERS = (_TIMEOUT.encode(), _PRIORITY.encode())


class Parameters(BaseModel):
    """The parameters of ``/classify``; what is named ``x-`` is a header, the rest is the query."""

    model_config = ConfigDict(frozen=True)

    model: str | None = Field(None, description="model's name; the default model if left out")
    version: int | None = Field(None, ge=1, description="its version; the highest if left out")
    top_k: int | None = Field(None, ge=1, description="classes to return; 5, or all if there are fewer")
    timeout_ms: int | None = Field(None, ge=1, description="give up after this many milliseconds")
    timeout_header_ms: int | None = Field(None, ge=1, alias=_TIMEOUT, description="the same as timeout_ms")
    priority: Literal["high", "normal", "low"] = Field("normal", alias=_PRIORITY, description="low is shed first")

    @classmethod
    def of(cls, request: Request) -> Parameters:
        """Return what ``request`` asks for, or raise InvalidParameter, which names what is wrong."""
        headers = (header for header in request.scope["headers"] if header[0] in _HEADERS)
        return _parse(request.scope["query_string"], *headers)

    @classmethod
    def openapi(cls) -> list[dict[str, Any]]:
        """Return OpenAPI's description of them."""
        properties = cls.model_json_schema()["properties"]
        return [
            {"name": name, "in": "header" if name.startswith("x-") else "query", "schema": schema}
            for name, schema in properties.items()
        ]


@functools.lru_cache(maxsize=16)  # clients repeat themselves; it can't be changed, so requests may share it
def _parse(query_string: bytes, *headers: tuple[bytes, bytes]) -> Parameters:
    given = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    asked = {name: value for name, value in given if not name.startswith("x-")}
    # Of several headers of one name the first counts.
    asked |= {name.decode(): value.decode("latin-1") for name, value in reversed(headers)}
    try:
        return Parameters.model_validate(asked)
    except ValidationError as error:
        raise InvalidParameter("; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())) from None
