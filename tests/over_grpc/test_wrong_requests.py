"""What no client library sends."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import Client, pictures, refused

Code = grpc.StatusCode
pytestmark = pytest.mark.usefixtures("_still_serves")
FRAMED = b"\x0a\0\0\0no picture"


def asked(*raw: bytes, **tensor: Any) -> Any:
    """Return a request with one input, which has contents or raw contents."""
    given = {"name": "images", "datatype": "BYTES", "shape": [1]} | tensor
    return pb.ModelInferRequest(model_name="xception", inputs=[given], raw_input_contents=raw)


def parameter(request: Any, where: Any, name: str, **value: Any) -> Any:
    where.parameters[name].CopyFrom(pb.InferParameter(**value))
    return request


def output(name: str, **parameters: Any) -> Any:
    request = asked(FRAMED)
    request.outputs.add(name=name)
    return parameter(request, request.outputs[0], "classification", **parameters) if parameters else request


def of(request: Any, name: str, **value: Any) -> Any:
    return parameter(request, request, name, **value)


PIXELS = {"datatype": "UINT8", "shape": [1, 299, 299, 3]}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"\xff\xff", "ends early"),
        (b"\x0b", "not of this protocol"),
        (b"\x0a\x02\xff\xff", "not of this protocol"),
        (b"\x2a\0" * 4_000_000, "more than 1000 fields"),
        (b"\x2a\x04\x2a\x02\x42\0" * 400, "more than 1000 fields"),
        (asked(contents={"uint_contents": [1] * 3_000_000}, **PIXELS), "3000000 bytes of numbers"),
        (pb.ModelInferRequest(model_name="xception"), "unexpected inference inputs []"),
        (pb.ModelInferRequest(model_name="x" * 1_000_000, inputs=[{}]), "no model"),
        (asked(), "has nothing"),
        (asked(FRAMED, name="x"), "unexpected inference inputs"),
        (asked(FRAMED, FRAMED), "2 raw_input_contents for 1 inputs"),
        (asked(FRAMED, contents={"bytes_contents": [b"x"]}), "beside raw_input_contents"),
        (asked(contents={"uint_contents": [1]}), "has uint_contents: send raw_input_contents, or bytes_contents"),
        (
            asked(contents={"int_contents": [1]}, **PIXELS),
            "has int_contents: send raw_input_contents, or uint_contents",
        ),
        (asked(contents={"uint_contents": [256]}, **PIXELS), "pixels are 0 to 255"),
        (asked(contents={"uint_contents": [1, 2, 3]}, **PIXELS), "has 3 bytes"),
        (asked(b"xyz", **PIXELS), "has 3 bytes"),
        (asked(contents={"fp32_contents": [1.0]}, datatype="FP32"), "must be UINT8"),
        (asked(FRAMED, datatype="bytes"), "must be UINT8"),
        (asked(FRAMED, shape=[0]), "a request of 0 images"),
        (asked(FRAMED, shape=[-1]), "a request of -1 images"),
        (asked(FRAMED, shape=[2**62, 2**62]), "must be UINT8"),
        (asked(FRAMED, shape=[2]), "fewer elements than its shape says, 2"),
        (asked(FRAMED * 2), "more elements than its shape says, 1"),
        (asked(FRAMED[:-1]), "a BYTES element of 10 bytes, and 9 are left"),
        (asked(b"\xff\xd8\xff\xe0no picture"), "this is a bare JPEG"),
        (asked(FRAMED), "not an image"),
        (asked(FRAMED, parameters={"shared_memory_region": {"string_param": "r"}}), "shared memory"),
        (output("logits"), "unexpected inference outputs"),
        (output("probabilities", int64_param=-1), "classification must be a whole number"),
        (output("probabilities", bool_param=True), "classification must be a whole number"),
        (of(asked(FRAMED), "timeout", int64_param=-1), "timeout must be a whole number"),
        (of(asked(FRAMED), "priority", string_param="high"), "priority must be a whole number"),
        (pictures(b"x", model_version="first"), "a version is a positive whole number"),
        (pictures(*[b"x"] * 17), "a request of 17 images: it must have 1 to 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_an_invalid_argument_and_says_why(client: Client, request_: Any, words: str) -> None:
    unknown = not isinstance(request_, bytes) and request_.model_name != "xception"
    with refused(Code.NOT_FOUND if unknown else Code.INVALID_ARGUMENT, words):
        client.infer(request_)


def test_one_broken_picture_of_several_is_named(client: Client, photo: bytes) -> None:
    with refused(Code.INVALID_ARGUMENT, "image 1: "):
        client.infer(pictures(photo, b"no picture", photo))


def test_a_message_over_the_limit(client: Client) -> None:
    with refused(Code.RESOURCE_EXHAUSTED, "larger than max"):
        client.infer(bytes(9_000_001))
    with refused(Code.RESOURCE_EXHAUSTED, "larger than max"):  # compressed, it is small
        client.rpc("ModelInfer")(bytes(9_000_001), compression=grpc.Compression.Gzip)


def test_a_call_without_a_request(client: Client) -> None:
    rpc = client.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    with refused(Code.INVALID_ARGUMENT, "the call has no request"):
        rpc(iter(()))
