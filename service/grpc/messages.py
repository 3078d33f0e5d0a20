"""Requests to infer and their answers, as protobuf's messages."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from service.classifier import Classifier
from service.errors import InvalidParameter
from service.grpc import fields
from service.grpc.inference_pb2 import InferParameter, ModelInferResponse
from service.open_inference.infer import InferRequest, Parameter, Parameters, described, refuse_shared_memory
from service.open_inference.tensors import Given, Tensor

_CONTENTS = {"UINT8": "uint_contents", "BYTES": "bytes_contents"}


def parse(kind: type[Message], raw: bytes) -> Any:
    """Return the message in ``raw``. Raises InvalidParameter."""
    fields.check(raw)
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidParameter(f"the message is not of this protocol: {error}") from None


def read(message: Any) -> InferRequest:
    """Return what a ModelInferRequest asks for. Raises InvalidParameter."""
    raw = [memoryview(content) for content in message.raw_input_contents]
    if raw and len(raw) != len(message.inputs):
        raise InvalidParameter(f"{len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    inputs = [_tensor(one, raw[index] if raw else None) for index, one in enumerate(message.inputs)]
    outputs = [(output.name, _parameters(output.parameters)) for output in message.outputs]
    return InferRequest(message.id, _parameters(message.parameters), inputs, outputs)


def _tensor(given: Any, raw: memoryview | None) -> Tensor:
    refuse_shared_memory(_parameters(given.parameters))
    filled = [field.name for field, _ in given.contents.ListFields()]
    if raw is not None and filled:
        raise InvalidParameter(f"input {given.name!r:.100} has contents beside raw_input_contents")
    wanted = _CONTENTS.get(given.datatype)
    if raw is None and wanted and filled != [wanted]:
        found = " and ".join(filled) or "nothing"
        raise InvalidParameter(f"input {given.name!r:.100} has {found}: send raw_input_contents, or {wanted}")
    if filled == ["uint_contents"]:
        raw = _pixels(given.contents.uint_contents)
    return Tensor(given.name, given.datatype, given.shape, raw, list(given.contents.bytes_contents))


def _pixels(numbers: Sequence[int]) -> memoryview:
    try:
        return memoryview(bytes(numbers))
    except ValueError:
        raise InvalidParameter("uint_contents has numbers that are no pixels: pixels are 0 to 255") from None


def _parameters(given: Mapping[str, Any]) -> Parameters:
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in given.items())
    return {name: getattr(value, kind) for name, value, kind in chosen if kind is not None}


def write(classifier: Classifier, request_id: str, given: Given) -> Any:
    """Return the ModelInferResponse. Its tensor is always in ``raw_output_contents``, where tritonclient looks."""
    return ModelInferResponse(
        model_name=classifier.name,
        model_version=str(classifier.version),
        id=request_id,
        parameters={name: _parameter(value) for name, value in described(classifier).items()},
        outputs=[{"name": given.name, "datatype": given.datatype, "shape": given.shape}],
        raw_output_contents=[given.raw()],
    )


def _parameter(value: Parameter) -> Any:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return InferParameter(**{kinds[type(value)]: value})
