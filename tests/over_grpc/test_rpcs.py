"""Every RPC, beside the answer to the same question over HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import httpx2
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import SERVICE, Client, pictures, refused

Code = grpc.StatusCode


def as_json(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def texts(found: Any) -> Any:
    """Return JSON with whole numbers as texts, as protobuf writes those of 64 bits."""
    return json.loads(re.sub(r"(?<=[ \[])(-?\d+)(?=[,\]}])", r'"\1"', json.dumps(found)))


@pytest.mark.parametrize(
    ("name", "request_of", "path"),
    [
        ("ServerMetadata", {}, "/v2"),
        ("ModelMetadata", {"name": "xception"}, "/v2/models/xception"),
        ("ModelMetadata", {"name": "xception", "version": "1"}, "/v2/models/xception"),
        ("ModelConfig", {"name": "xception"}, "/v2/models/xception/config"),
        ("ModelStatistics", {"name": "xception"}, "/v2/models/stats"),
        ("ModelStatistics", {}, "/v2/models/xception/versions/1/stats"),
    ],
)
def test_a_description_says_what_http_says(
    client: Client, over_http: httpx2.Client, name: str, request_of: dict[str, str], path: str
) -> None:
    found = as_json(client.call(name, getattr(pb, f"{name}Request")(**request_of)))
    assert texts(found.get("config", found)) == texts(over_http.get(path).json())


def test_the_index_lists_what_is_served(client: Client, over_http: httpx2.Client) -> None:
    listed = as_json(client.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)))["models"]
    assert listed == over_http.post("/v2/repository/index").json()
    assert [entry["state"] for entry in listed] == ["READY"]


def test_the_server_is_live_and_ready(client: Client) -> None:
    assert client.call("ServerLive", pb.ServerLiveRequest()).live
    assert client.call("ServerReady", pb.ServerReadyRequest()).ready
    assert client.health() == client.health("inference.GRPCInferenceService") == "SERVING"


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("xception", "", True), ("xception", "1", True), ("xception", "2", False), ("x", "", False)],
)
def test_an_unknown_model_is_not_ready(client: Client, name: str, version: str, ready: bool) -> None:
    assert client.call("ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_an_unknown_model_is_not_found(client: Client) -> None:
    for name in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        with refused(Code.NOT_FOUND, "no model 'nobody'"):
            client.call(name, getattr(pb, f"{name}Request")(name="nobody"))
    with refused(Code.NOT_FOUND, "no version 2"):
        client.infer(pictures(b"x", model_version="2"))


def test_what_the_server_has_not_is_unimplemented(client: Client) -> None:
    with refused(Code.UNIMPLEMENTED):
        client.channel.unary_unary(f"{SERVICE}SystemSharedMemoryStatus")(b"")


def test_pictures_and_pixels_come_in_contents_or_raw(client: Client, over_http: httpx2.Client, photo: bytes) -> None:
    framed = pictures(photo)
    framed.inputs[0].ClearField("contents")
    framed.raw_input_contents.append(len(photo).to_bytes(4, "little") + photo)
    grey = pb.ModelInferRequest(model_name="xception")
    grey.inputs.add(name="images", datatype="UINT8", shape=[1, 299, 299, 3])
    listed = pb.ModelInferRequest.FromString(grey.SerializeToString())
    grey.raw_input_contents.append(bytes([128]) * 268_203)
    listed.inputs[0].contents.uint_contents.extend([128] * 268_203)
    for one, other in ((pictures(photo), framed), (grey, listed)):
        answers = [client.infer(request) for request in (one, other)]
        assert [list(answer.outputs[0].shape) for answer in answers] == [[1, 6], [1, 6]]
        first, second = (np.frombuffer(answer.raw_output_contents[0], "<f4") for answer in answers)
        assert first.tolist() == second.tolist()
        assert first.sum() == pytest.approx(1.0, abs=1e-3)
    told = over_http.post("/v2/models/xception/infer", content=photo, headers={"Inference-Header-Content-Length": "0"})
    assert told.content.endswith(client.infer(pictures(photo)).raw_output_contents[0])


def test_an_answer_names_what_gave_it(client: Client, photo: bytes) -> None:
    answer = client.infer(pictures(photo, photo, classes=2, id="mine \N{SNOWMAN}", model_version="01"))
    assert (answer.model_name, answer.model_version, answer.id) == ("xception", "1", "mine \N{SNOWMAN}")
    assert (answer.parameters["trained"].bool_param, answer.parameters["precision"].string_param) == (True, "int8")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("probabilities", "BYTES", [2, 2])
    assert re.findall(rb"0\.\d{6}:\d:plate", answer.raw_output_contents[0])[0] == b"0.918323:4:plate"


@pytest.mark.usefixtures("_still_serves")
def test_a_stream_answers_in_order_and_outlives_wrong_requests(client: Client, photo: bytes) -> None:
    sent = [
        pictures(photo, classes=1, id="first"),
        pictures(b"no picture", id="broken"),
        pictures(photo, id="unknown", model_version="7"),
        b"\x2a\0" * 2000,
        b"\xff\xff",
        pictures(photo, classes=1, id="last"),
    ]
    first, broken, unknown, many, garbage, last = client.stream(iter(sent))
    for answer, name in ((first, "first"), (last, "last")):
        assert (answer.error_message, answer.infer_response.id) == ("", name)
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        assert b":plate" in answer.infer_response.raw_output_contents[0]
    assert (broken.infer_response.id, "not an image" in broken.error_message) == ("broken", True)
    assert (unknown.infer_response.id, "no version 7" in unknown.error_message) == ("unknown", True)
    assert "more than 1000 fields" in many.error_message
    assert "the message ends early" in garbage.error_message
