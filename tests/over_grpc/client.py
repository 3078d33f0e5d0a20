"""A client made of our own stubs, over a real channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from service.grpc import inference_pb2 as pb
from tests.server import Server

Metadata = Sequence[tuple[str, str]]
PATIENCE_S = 30.0
SERVICE = "/inference.GRPCInferenceService/"


class Client:
    """Calls RPCs by name. A request is a message, or bytes that may be none."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def rpc(self, name: str) -> Any:
        answer = getattr(pb, f"{name}Response").FromString
        return self.channel.unary_unary(SERVICE + name, serialized, answer)

    def call(self, name: str, request: Any, timeout: float = PATIENCE_S, metadata: Metadata = ()) -> Any:
        return self.rpc(name)(request, timeout=timeout, metadata=metadata)

    def infer(self, request: Any, timeout: float = PATIENCE_S, metadata: Metadata = ()) -> Any:
        return self.call("ModelInfer", request, timeout, metadata)

    def stream(self, requests: Iterator[Any], metadata: Metadata = ()) -> Any:
        rpc = self.channel.stream_stream(
            f"{SERVICE}ModelStreamInfer", serialized, pb.ModelStreamInferResponse.FromString
        )
        return rpc(requests, metadata=metadata)

    def health(self, service: str = "") -> str:
        answer = health_pb2.HealthCheckResponse
        rpc = self.channel.unary_unary("/grpc.health.v1.Health/Check", serialized, answer.FromString)
        status: str = answer.ServingStatus.Name(rpc(health_pb2.HealthCheckRequest(service=service)).status)
        return status


def serialized(request: Any) -> bytes:
    found: bytes = request if isinstance(request, bytes) else request.SerializeToString()
    return found


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    """Open a connection of its own: gRPC's channels share one if they may."""
    with grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Client(channel)


def pictures(*files: bytes, classes: int = 0, **fields: Any) -> Any:
    """Return a request to classify pictures' files."""
    request = pb.ModelInferRequest(model_name="xception", **fields)
    request.inputs.add(name="images", datatype="BYTES", shape=[len(files)]).contents.bytes_contents.extend(files)
    if classes:
        request.outputs.add(name="probabilities").parameters["classification"].int64_param = classes
    return request


@contextmanager
def refused(code: grpc.StatusCode, words: str = "") -> Iterator[pytest.ExceptionInfo[grpc.RpcError]]:
    """Expect that a call ends with ``code``, and with details that have ``words`` and show no traceback."""
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    error: Any = caught.value
    assert (error.code(), words in error.details()) == (code, True), error.details()
    assert "Traceback" not in error.details()
    assert "<class" not in error.details()
