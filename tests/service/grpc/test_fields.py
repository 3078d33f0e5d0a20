"""The bounds on a message's parts, beside protobuf's own reading."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.grpc import fields, messages
from service.grpc.inference_pb2 import ModelInferRequest, RepositoryModelLoadRequest

texts = st.text(max_size=3)
numbers = st.integers(-(2**31), 2**31 - 1)
values: st.SearchStrategy[dict[str, Any]] = (
    st.fixed_dictionaries({"int64_param": numbers})
    | st.fixed_dictionaries({"string_param": texts})
    | st.fixed_dictionaries({"double_param": st.floats()})
    | st.just({})
)
parameters = st.dictionaries(texts | st.sampled_from(["timeout", "priority", "classification"]), values, max_size=3)
contents = st.fixed_dictionaries(
    {},
    optional={
        "uint_contents": st.lists(st.integers(0, 300), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
        "fp64_contents": st.lists(st.floats(), max_size=3),
    },
)
inputs = st.fixed_dictionaries(
    {"name": texts, "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]), "shape": st.lists(numbers, max_size=3)},
    optional={"parameters": parameters, "contents": contents},
)
requests = st.fixed_dictionaries(
    {"model_name": texts, "inputs": st.lists(inputs, max_size=3), "parameters": parameters},
    optional={
        "id": texts,
        "outputs": st.lists(st.fixed_dictionaries({"name": texts, "parameters": parameters}), max_size=2),
        "raw_input_contents": st.lists(st.binary(max_size=5), max_size=3),
    },
)


def ask(raw: bytes) -> None:
    with contextlib.suppress(InvalidParameter):
        asked = messages.read(messages.parse(ModelInferRequest, raw))
        asked.terms()
        asked.wanted()


def test_a_shape_has_a_bound() -> None:
    request = ModelInferRequest()
    request.inputs.add(shape=[1] * 100)
    with pytest.raises(InvalidParameter, match="a shape has 100 bytes"):
        messages.parse(ModelInferRequest, request.SerializeToString())


def test_other_requests_have_a_bound_too() -> None:
    request = RepositoryModelLoadRequest(model_name="m")
    for number in range(1001):
        request.parameters[str(number)].bool_param = True
    with pytest.raises(InvalidParameter, match="more than 1000 fields"):
        messages.parse(RepositoryModelLoadRequest, request.SerializeToString())


@pytest.mark.fuzz
@given(requests)
def test_a_request_of_a_client_passes(request: dict[str, Any]) -> None:
    raw = ModelInferRequest(**request).SerializeToString()
    fields.check(raw)
    ask(raw)


@pytest.mark.fuzz
@given(requests, st.data())
def test_no_bytes_do_more_than_raise_invalid_parameter(request: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(ModelInferRequest(**request).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    ask(bytes(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x2a\0" * 1001,
        b"\x3a\0" * 1001,
        b"\x32\0" * 1001,
        b"\x22\x02\x0a\0" * 1001,
        ModelInferRequest(inputs=[{"contents": {"bytes_contents": [b""] * 1001}}]).SerializeToString(),
        ModelInferRequest(inputs=[{"parameters": {str(n): {} for n in range(1001)}}]).SerializeToString(),
        ModelInferRequest(outputs=[{"parameters": {str(n): {} for n in range(1001)}}]).SerializeToString(),
        ModelInferRequest(inputs=[{"shape": [1]}] * 700).SerializeToString(),
    ],
    ids=["inputs", "raw", "outputs", "parameters", "bytes", "of input", "of output", "nested"],
)
def test_no_part_is_repeated_without_end(raw: bytes) -> None:
    with pytest.raises(InvalidParameter, match="more than 1000 fields"):
        fields.check(raw)


def field(number: int, content: bytes) -> bytes:
    """Return a field whose length is written in four bytes."""
    length = [len(content) >> shift & 0x7F for shift in (0, 7, 14, 21)]
    return bytes([number << 3 | 2, length[0] | 0x80, length[1] | 0x80, length[2] | 0x80, length[3]]) + content


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 9])
def test_a_list_of_numbers_is_short(number: int) -> None:
    fields.check(field(5, field(5, field(number, bytes(1_250_000)))))
    with pytest.raises(InvalidParameter, match="bytes of numbers: send a tensor of this size in raw_input_contents"):
        fields.check(field(5, field(5, field(number, bytes(1_250_001)))))


def test_pictures_and_raw_tensors_may_be_large() -> None:
    tensor = {"contents": {"bytes_contents": [bytes(5_000_000)]}}
    fields.check(ModelInferRequest(inputs=[tensor], raw_input_contents=[bytes(5_000_000)]).SerializeToString())
