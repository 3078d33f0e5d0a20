"""Our description of the protocol beside the one that Triton's client ships, and beside KServe's."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from tritonclient.grpc import model_config_pb2, service_pb2

from service.grpc import inference_pb2

pytestmark = pytest.mark.clients
OURS = inference_pb2.DESCRIPTOR
THEIRS = [service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR]
NOT_TRITON_S = {"ModelMetadataResponse.properties"}  # KServe's alone


def messages(file: Any) -> dict[str, Any]:
    """Return the messages of a file, and those inside, by name."""
    found = dict(file.message_types_by_name)
    for name, message in file.message_types_by_name.items():
        found |= {f"{name}.{inner.name}": inner for inner in message.nested_types}
    return found


def of(field: Any) -> tuple[Any, ...]:
    kind = field.message_type.name if field.message_type else field.enum_type.name if field.enum_type else field.type
    return field.number, kind, field.is_repeated


def test_every_field_has_the_number_and_the_type_that_triton_gives_it() -> None:
    theirs = messages(THEIRS[0]) | messages(THEIRS[1])
    compared = 0
    for name, message in messages(OURS).items():
        for field in message.fields:
            if f"{name}.{field.name}" not in NOT_TRITON_S and not name.endswith("PropertiesEntry"):
                assert of(field) == of(theirs[name].fields_by_name[field.name]), f"{name}.{field.name}"
                compared += 1
    assert compared > 120


def test_every_enum_has_triton_s_numbers() -> None:
    theirs = {**THEIRS[1].enum_types_by_name}
    for name, message in messages(OURS).items():
        for enum in message.enum_types:
            other = (messages(THEIRS[1]))[name].enum_types_by_name[enum.name]
            assert {value.name: value.number for value in enum.values} == {v.name: v.number for v in other.values}
    for name, enum in OURS.enum_types_by_name.items():
        known = theirs[name].values_by_name
        assert {value.name: value.number for value in enum.values} == {
            value.name: known[value.name].number for value in enum.values
        }


def test_every_rpc_is_triton_s() -> None:
    (ours,) = OURS.services_by_name.values()
    theirs = THEIRS[0].services_by_name[ours.name]
    assert ours.full_name == theirs.full_name == "inference.GRPCInferenceService"
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert (method.input_type.name, method.output_type.name) == (other.input_type.name, other.output_type.name)
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)


def test_both_copies_live_in_one_process() -> None:
    assert Default().FindMessageTypeByName("inference.ModelInferRequest") is service_pb2.ModelInferRequest.DESCRIPTOR
    assert OURS.pool is not Default()
