"""API keys hold for gRPC as they do for HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.auth import new_key
from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import Client, Metadata, connected, pictures, refused
from tests.server import Server, serving

Code = grpc.StatusCode


def made(name: str, *more: str) -> tuple[str, str]:
    key, _, lines = new_key(name).partition("\n\n")
    return key, "\n".join([lines, *more, ""])


APP, APP_LINES = made("app", 'priority = "low"')
SELDOM, SELDOM_LINES = made("seldom", 'rate = "3/minute"')
ADMIN, ADMIN_LINES = made("night-shift", "admin = true")


@pytest.fixture(scope="module")
def locked(xception: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(APP_LINES + SELDOM_LINES + ADMIN_LINES)
    with serving(xception, grpc_port=0, device="cpu", api_keys=keys, max_timeout_ms=4_000) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(locked: Server) -> Iterator[Client]:
    with connected(locked) as open_client:
        yield open_client


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


@pytest.mark.parametrize("metadata", [(), bearer("wrong"), (("x-api-key", ""),), (("authorization", "Basic eDp5"),)])
def test_nobody_comes_in_without_a_key(stranger: Client, metadata: Metadata) -> None:
    for name in ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"):
        with refused(Code.UNAUTHENTICATED, "API key"):
            stranger.call(name, getattr(pb, f"{name}Request")(), metadata=metadata)
    with refused(Code.UNAUTHENTICATED, "API key"):
        stranger.infer(pictures(b"x"), metadata=metadata)
    with refused(Code.UNAUTHENTICATED, "API key"):
        next(stranger.stream(iter([pictures(b"x")]), metadata=metadata))


def silent(sent: threading.Event) -> Iterator[bytes]:
    """Be a client that begins a call, and then sends nothing until the test is over."""
    sent.wait()
    yield from ()


def test_the_server_does_not_wait_for_a_message_without_a_key(stranger: Client) -> None:
    over = threading.Event()
    rpc = stranger.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        with refused(Code.UNAUTHENTICATED):
            rpc(silent(over), timeout=30)
    finally:
        over.set()


def test_a_client_that_sends_nothing_is_sent_away(stranger: Client) -> None:
    """The server's ``max_timeout_ms`` is 4 s, and the client would wait for 30 s."""
    over = threading.Event()
    calls = [
        stranger.channel.stream_stream(f"/inference.GRPCInferenceService/{name}")(
            silent(over), timeout=30, metadata=bearer(APP)
        )
        for name in ("ModelInfer", "ModelStreamInfer")
    ]
    try:
        for call in calls:
            with refused(Code.DEADLINE_EXCEEDED, "the client sent nothing, or took nothing, for 4 s"):
                next(call)
    finally:
        over.set()


def test_health_needs_no_key(stranger: Client) -> None:
    assert stranger.health() == "SERVING"
    assert stranger.call("ServerLive", pb.ServerLiveRequest()).live
    assert stranger.call("ServerReady", pb.ServerReadyRequest()).ready


def test_a_key_lets_in_and_its_priority_holds(stranger: Client, locked: Server, photo: bytes) -> None:
    request = pictures(photo, classes=1)
    request.parameters["priority"].uint64_param = 1
    for metadata in (bearer(APP), (("x-api-key", APP), ("authorization", "Bearer of-a-gateway"))):
        assert b":plate" in stranger.infer(request, metadata=metadata).raw_output_contents[0]
    with locked.client() as admin:
        metrics = admin.get("/metrics", headers={"X-API-Key": ADMIN}).text
    assert 'inferception_key_requests_total{key="app",status="OK"} 2.0' in metrics
    assert 'inferception_key_requests_total{key="",status="UNAUTHENTICATED"}' in metrics
    assert not any(key in line for line in (*locked.output, metrics) for key in (APP, SELDOM, ADMIN))


@pytest.mark.parametrize("name", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_are_the_administrators(stranger: Client, name: str) -> None:
    request = getattr(pb, f"{name}Request")(model_name="xception")
    with refused(Code.PERMISSION_DENIED, "administrator"):
        stranger.call(name, request, metadata=bearer(APP))
    with refused(Code.PERMISSION_DENIED, "admin_api"):
        stranger.call(name, request, metadata=bearer(ADMIN))


def test_a_rate_is_one_for_http_and_for_every_message_of_a_stream(
    stranger: Client, locked: Server, photo: bytes
) -> None:
    with locked.client() as http:
        assert http.get("/models", headers={"X-API-Key": SELDOM}).status_code == 200
    answers = list(stranger.stream(iter([pictures(photo, id=str(n)) for n in range(3)]), metadata=bearer(SELDOM)))
    assert [answer.error_message.partition(" 3 per")[0] for answer in answers] == ["", "", "the key seldom may ask"]
    with refused(Code.RESOURCE_EXHAUSTED, "the key seldom may ask") as caught:
        stranger.infer(pictures(photo), metadata=bearer(SELDOM))
    error: Any = caught.value
    assert 1 <= int(dict(error.trailing_metadata())["retry-after-ms"]) <= 60_000
