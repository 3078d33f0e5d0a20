"""What goes round a call: deadlines, cancellation, overload, metrics, the log."""

from __future__ import annotations

import queue
import re
import time
from typing import Any

import grpc
import httpx2
import pytest

from service.grpc import inference_pb2 as pb
from tests.over_grpc.client import PATIENCE_S, SERVICE, Client, pictures, refused
from tests.server import Server

Code = grpc.StatusCode
MOST = 16  # images that the server's queue holds
pytestmark = pytest.mark.usefixtures("_still_serves")


def metric(over_http: httpx2.Client, name: str, **labels: str) -> float:
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    beginnings = (f"inferception_{name}{{", f"inferception_{name} ")
    lines = [line for line in over_http.get("/metrics").text.splitlines() if line.startswith(beginnings)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline


def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: Client, photo: bytes) -> None:
    """So many images take more than 0.2 s. The wait is told in milliseconds."""
    many = pictures(*[photo] * MOST)
    with refused(Code.RESOURCE_EXHAUSTED, "past its deadline") as by_deadline:
        client.infer(many, timeout=0.2)
    many.parameters["timeout"].int64_param = 200_000  # microseconds
    with refused(Code.RESOURCE_EXHAUSTED, "past its deadline") as by_parameter:
        client.infer(many)
    for caught in (by_deadline, by_parameter):
        error: Any = caught.value
        assert int(dict(error.trailing_metadata())["retry-after-ms"]) >= 1


def test_the_smaller_of_two_deadlines_counts(client: Client, photo: bytes) -> None:
    many = pictures(*[photo] * MOST)
    many.parameters["timeout"].int64_param = 30_000_000
    with refused(Code.RESOURCE_EXHAUSTED, "past its deadline"):
        client.infer(many, timeout=0.2)
    assert len(client.infer(many).raw_output_contents[0]) == MOST * 6 * 4


def test_a_call_that_is_cancelled_gives_its_rows_back(client: Client, over_http: httpx2.Client, photo: bytes) -> None:
    gone, answered = (metric(over_http, name) for name in ("disconnected_total", "images_total"))
    request = pictures(*[photo] * MOST)
    call = client.rpc("ModelInfer").future(request, timeout=PATIENCE_S)
    wait_until(lambda: metric(over_http, "queue_bytes") > 0)
    assert metric(over_http, "body_bytes_in_flight") == request.ByteSize()
    call.cancel()
    wait_until(lambda: metric(over_http, "disconnected_total") == gone + 1)
    wait_until(lambda: metric(over_http, "queue_bytes") == 0)
    assert metric(over_http, "queue_depth") == metric(over_http, "body_bytes_in_flight") == 0
    assert metric(over_http, "images_total") == answered  # no image of the call was answered
    assert metric(over_http, "requests_total", path=f"{SERVICE}ModelInfer", status="CANCELLED") >= 1


def test_a_flood_is_resource_exhausted_and_health_is_answered(client: Client, photo: bytes) -> None:
    """One call fills the queue. What comes then is refused, and nothing is UNAVAILABLE."""
    calls = [client.rpc("ModelInfer").future(pictures(*[photo] * MOST), timeout=PATIENCE_S) for _ in range(4)]
    assert client.health() == "SERVING"
    codes = [call.code() for call in calls]
    assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
    refusals = [call for call in calls if call.code() is not Code.OK]
    assert all(int(dict(call.trailing_metadata())["retry-after-ms"]) >= 1 for call in refusals)


def test_messages_count_among_the_bytes_of_bodies(client: Client, over_http: httpx2.Client, photo: bytes) -> None:
    call = client.rpc("ModelInfer").future(pictures(*[photo] * MOST), timeout=PATIENCE_S)
    wait_until(lambda: metric(over_http, "queue_bytes") > 0)
    with refused(Code.RESOURCE_EXHAUSTED, "bytes of bodies are in flight"):
        client.infer(bytes(8_999_999))
    assert call.code() is Code.OK


def test_calls_at_a_time_are_bounded(client: Client, photo: bytes) -> None:
    """Streams that are open count as calls, and a stream too many is gRPC's to refuse."""
    sent = [queue.SimpleQueue[Any]() for _ in range(2 * MOST)]
    streams = [client.stream(iter(messages.get, None)) for messages in sent]
    for messages, stream in zip(sent, streams, strict=True):
        messages.put(pictures(b"no picture"))
        assert "not an image" in next(stream).error_message
    with refused(Code.RESOURCE_EXHAUSTED, "limit"):
        client.infer(pictures(photo))
    for messages in sent:
        messages.put(None)
    assert [stream.code() for stream in streams] == [Code.OK] * 2 * MOST


def test_a_call_is_counted_and_logged(client: Client, over_http: httpx2.Client, server: Server, photo: bytes) -> None:
    path = f"{SERVICE}ModelInfer"

    def counted() -> list[float]:
        return [
            metric(over_http, "requests_total", model="xception", path=path, status="OK"),
            metric(over_http, "requests_total", model="xception", path=path, status="INVALID_ARGUMENT"),
            metric(over_http, "images_total", model="xception", outcome="ok"),
            metric(over_http, "stage_seconds_count", stage="total"),
        ]

    before = counted()
    rpc = client.rpc("ModelInfer")
    _, call = rpc.with_call(pictures(photo, photo), metadata=(("x-request-id", "marked"),))
    assert dict(call.trailing_metadata())["x-request-id"] == "marked"
    with refused(Code.INVALID_ARGUMENT) as caught:
        client.infer(pictures(b"x"), metadata=(("x-request-id", "no id"),))
    error: Any = caught.value
    assert re.fullmatch("[0-9a-f]{16}", dict(error.trailing_metadata())["x-request-id"])
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 2, 2]
    wait_until(lambda: any("request_id=marked" in line for line in server.output))
    (line,) = [line for line in server.output if "request_id=marked" in line]
    assert f"method=GRPC path={path} status=OK model=xception" in line
    assert re.search(r"decode_ms=\S+ queue_ms=\S+ infer_ms=\S+ total_ms=", line)


def test_health_checks_leave_no_line(client: Client, server: Server) -> None:
    client.health()
    client.call("ServerLive", pb.ServerLiveRequest())
    client.call("ServerMetadata", pb.ServerMetadataRequest(), metadata=(("x-request-id", "after-health"),))
    wait_until(lambda: any("request_id=after-health" in line for line in server.output))
    assert not any(name in line for line in server.output for name in ("Health/Check", "ServerLive"))
