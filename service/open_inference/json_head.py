"""The JSON of a request to infer, and of its answer, with the binary tensors that follow either."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from service.classifier import Classifier
from service.errors import InvalidParameter
from service.open_inference.infer import InferRequest, Parameter, described, refuse_shared_memory
from service.open_inference.tensors import Given, Tensor

_MAX_REASON = 500  # characters
_MAX_SMALL = 10_000  # bytes
_MAX_JSON = 2_500_000  # bytes: pixels of two images. Parsing takes 20 ms of the event loop for a million bytes


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Input(_Strict):
    name: str
    datatype: str
    shape: Annotated[list[int], Field(min_length=1, max_length=8)]
    parameters: dict[str, Parameter] = {}
    data: list[Any] | None = None


class _Output(_Strict):
    name: str
    parameters: dict[str, Parameter] = {}


class _Head(_Strict):
    id: Annotated[str, Field(max_length=4096)] | None = None
    parameters: dict[str, Parameter] = {}
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=16)]
    outputs: Annotated[list[_Output], Field(max_length=16)] | None = None


def read(body: memoryview, head_bytes: int | None) -> InferRequest:
    """Return the request in ``body``, whose first ``head_bytes`` are JSON, or all. Raises InvalidParameter."""
    size = len(body) if head_bytes is None else head_bytes
    if size > len(body):
        raise InvalidParameter(f"Inference-Header-Content-Length is {size}, and the body has {len(body)} bytes")
    if size > _MAX_JSON:
        raise InvalidParameter(f"{size} bytes of JSON are more than {_MAX_JSON}: send images as binary tensors")
    try:
        head = _Head.model_validate_json(bytes(body[:size]))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        reasons = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the JSON'}: {one['msg']}" for one in wrong)
        alone = "" if head_bytes else "; a picture alone needs the header Inference-Header-Content-Length: 0"
        raise InvalidParameter(reasons[:_MAX_REASON] + alone) from None
    rest, inputs = body[size:], list[Tensor]()
    for one in head.inputs:
        refuse_shared_memory(one.parameters)
        raw, rest = _raw(one, rest)
        inputs.append(Tensor(one.name, one.datatype, one.shape, raw, one.data))
    if rest:
        raise InvalidParameter(f"{len(rest)} bytes are left after the last binary tensor")
    outputs = [(output.name, output.parameters) for output in head.outputs or ()]
    return InferRequest(head.id or "", head.parameters, inputs, outputs)


def read_parameters(body: bytes | bytearray) -> dict[str, Any]:
    """Return a small JSON object that may be missing. Raises InvalidParameter."""
    if len(body) > _MAX_SMALL:
        raise InvalidParameter(f"the body has {len(body)} bytes, and {_MAX_SMALL} are enough")
    try:
        found = from_json(bytes(body)) if body else {}
    except ValueError as error:
        raise InvalidParameter(f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidParameter("the body must be a JSON object, or empty")
    return found


def _raw(given: _Input, rest: memoryview) -> tuple[memoryview | None, memoryview]:
    """Return the bytes of a binary tensor, or None for a tensor in JSON, and the bytes after it."""
    size = given.parameters.get("binary_data_size")
    if (size is None) == (given.data is None):
        raise InvalidParameter(f"input {given.name!r:.100} must have either data or the parameter binary_data_size")
    if size is None:
        return None, rest
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
        left = f"and {len(rest)} bytes are left"
        raise InvalidParameter(f"binary_data_size of {given.name!r:.100} is {size!r:.50}, {left}")
    return rest[:size], rest[size:]


def write(classifier: Classifier, request_id: str, given: Given, *, binary: bool) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the bytes of its JSON if a binary tensor follows."""
    blob = given.raw() if binary else b""
    content = {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": given.data()}
    head = {
        **({"id": request_id} if request_id else {}),
        "model_name": classifier.name,
        "model_version": str(classifier.version),
        "parameters": described(classifier),
        "outputs": [{"name": given.name, "datatype": given.datatype, "shape": given.shape, **content}],
    }
    text = json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return text + blob, len(text) if binary else None
