"""No bytes make the wire format do anything but return or raise InvalidParameter."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.open_inference import json_head
from service.open_inference.tensors import Tensor, Wanted, images
from service.open_inference.tensors import given as given_tensor

PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]], np.float32)
LABELS = ("one", "two: too", "three")

texts = st.text(max_size=8) | st.sampled_from(["images", "UINT8", "BYTES", "probabilities"])
numbers = st.integers() | st.integers(-1, 16) | st.floats() | st.booleans()
values = st.recursive(st.none() | numbers | texts, lambda inner: st.lists(inner, max_size=6), max_leaves=12)
parameters = st.dictionaries(
    st.sampled_from(["binary_data_size", "classification", "timeout", "priority", "binary_data", "other"]),
    values,
    max_size=3,
)
tensors = st.fixed_dictionaries(
    {"name": texts | values, "datatype": texts, "shape": st.lists(numbers, max_size=4) | values},
    optional={"data": values, "parameters": parameters},
)
heads = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2) | values},
    optional={
        "id": texts | values,
        "parameters": parameters,
        "outputs": st.lists(st.fixed_dictionaries({"name": texts}, optional={"parameters": parameters}), max_size=2),
    },
)


def ask(body: bytes, head_bytes: int | None) -> None:
    try:
        request = json_head.read(memoryview(body), head_bytes)
        request.terms()
        request.wanted()
        found = images(request.inputs, 2, 1, 4)
    except InvalidParameter:
        return
    assert 1 <= len(found) <= 4
    assert all(not isinstance(one, np.ndarray) or one.shape == (2, 1, 3) for one in found)


@pytest.mark.fuzz
@given(head=heads, blob=st.binary(max_size=40), offset=st.integers(-3, 3))
@settings(deadline=None)
def test_no_head_breaks_it(head: Any, blob: bytes, offset: int) -> None:
    text = json.dumps(head).encode()
    ask(text + blob, max(0, len(text) + offset) if blob else None)


@pytest.mark.fuzz
@given(body=st.binary(max_size=200), head_bytes=st.none() | st.integers(0, 300))
@settings(deadline=None)
def test_no_bytes_break_it(body: bytes, head_bytes: int | None) -> None:
    ask(body, head_bytes)


@pytest.mark.fuzz
@given(raw=st.binary(max_size=40), shape=st.lists(st.integers(-2, 5), min_size=1, max_size=2))
@settings(deadline=None)
def test_no_elements_break_it(raw: bytes, shape: list[int]) -> None:
    try:
        found = images([Tensor("images", "BYTES", shape, memoryview(raw))], 2, 1, 4)
    except InvalidParameter:
        return
    framed = b"".join(struct.pack("<I", len(one)) + bytes(one) for one in found)
    assert framed == raw


def test_classes_are_texts_of_score_index_and_label() -> None:
    found = given_tensor(PROBABILITIES, Wanted(2), LABELS)
    assert (found.datatype, found.shape) == ("BYTES", [2, 2])
    assert found.data() == ["0.700000:1:two: too", "0.200000:2:three", "0.400000:2:three", "0.300000:0:one"]
    assert found.raw().startswith(b"\x13\0\0\0" + b"0.700000:1:two: too")
    assert given_tensor(PROBABILITIES, Wanted(9), LABELS).shape == [2, 3]


def test_probabilities_are_little_endian_floats() -> None:
    found = given_tensor(PROBABILITIES, Wanted(), LABELS)
    assert (found.datatype, found.shape) == ("FP32", [2, 3])
    assert np.array_equal(np.frombuffer(found.raw(), "<f4").reshape(2, 3), PROBABILITIES)
    assert found.data()[0] == 0.10000000149011612
