"""How gRPC's server starts and stops, with the process."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.errors import StartupError
from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import PATIENCE_S, connected, pictures, refused
from tests.over_grpc.test_calls import metric, wait_until
from tests.server import Server, serving

Code = grpc.StatusCode


def test_a_drain_finishes_calls_and_ends_streams(xception: Path, photo: bytes) -> None:
    sent: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue(), queue.SimpleQueue()]
    with (
        serving(xception, grpc_port=0, device="cpu", drain_grace_ms=2_000, max_batch_size=1) as server,
        connected(server) as client,
        server.client() as over_http,
    ):
        idle, busy = (client.stream(iter(messages.get, None)) for messages in sent)
        for stream, messages in ((idle, sent[0]), (busy, sent[1])):
            messages.put(pictures(photo, id="before"))
            assert next(stream).infer_response.id == "before"
        # Together they take longer than the grace.
        accepted = [client.rpc("ModelInfer").future(pictures(*[photo] * 32), timeout=PATIENCE_S) for _ in range(2)]
        wait_until(lambda: metric(over_http, "queue_depth") > 32)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.health() == "NOT_SERVING")
        assert not client.call("ServerReady", pb.ServerReadyRequest()).ready
        assert client.call("ServerLive", pb.ServerLiveRequest()).live
        with refused(Code.UNAVAILABLE, "the server is shutting down"):
            client.infer(pictures(photo))
        sent[1].put(pictures(photo))
        for stream in (busy, idle):
            with refused(Code.UNAVAILABLE, "the server is shutting down"):
                next(stream)
        assert [len(call.result().raw_output_contents[0]) for call in accepted] == [32 * 6 * 4] * 2
        assert server.process.wait(PATIENCE_S) == 0
        for messages in sent:
            messages.put(None)
    assert not any("Traceback" in line for line in server.output)


def test_a_port_in_use_is_a_clear_error(xception: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                StartupError, match=rf"can't start: gRPC cannot listen on 127\.0\.0\.1 port {port}"
            ) as caught,
            serving(xception, grpc_port=port, device="cpu"),
        ):
            pass
    assert "Traceback" not in str(caught.value)
    assert "loaded xception" not in str(caught.value)


def test_a_server_without_the_setting_does_not_import_grpc() -> None:
    program = "import sys, service.__main__, service.http.uvicorn_server; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def opened(server: Server) -> socket.socket:
    """Open a bare connection."""
    host, _, port = server.grpc_address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE_S)


def test_connections_are_bounded_in_number_and_in_patience(xception: Path) -> None:
    limits = {"max_connections": 2, "body_timeout_ms": 500, "max_timeout_ms": 1_000}
    with (
        serving(xception, grpc_port=0, device="cpu", **limits) as server,
        connected(server) as idle,
        opened(server) as silent,
    ):
        assert idle.health() == "SERVING"
        with opened(server) as third:
            assert third.recv(1) == b""
        while silent.recv(1024):  # the server's greeting, and then the end
            pass
        with connected(server) as newcomer:
            grpc.channel_ready_future(newcomer.channel).result(PATIENCE_S)
            assert newcomer.health() == "SERVING"
