"""Events that end a request early: a body too large or too slow, a deadline, a client that leaves."""

from __future__ import annotations

import json
import select
import time
from contextlib import ExitStack

import httpx2

from tests.over_http.exchange import assert_problem, classify, png
from tests.server import Server, received

LIMIT = 20_000_000


def test_a_body_declared_too_large_is_refused(client: httpx2.Client) -> None:
    assert_problem(classify(client, b"x" * (LIMIT + 1)), 413, str(LIMIT))


def test_an_endless_body_is_refused_while_it_is_read(server: Server) -> None:
    """The body has no Content-Length and no end, so only a limit on the bytes read can end it."""
    with server.connect() as connection:
        head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
        for _ in range(LIMIT // (1 << 20) + 1):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_stops_coming_is_cut_off(server: Server) -> None:
    with server.connect() as connection:
        head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nonly this".encode())
        answer = b""
        while chunk := connection.recv(1000):  # until the server closes the connection
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive" in answer


def test_a_client_that_leaves_is_noticed_and_its_place_freed(server: Server, labelled: list[tuple[bytes, str]]) -> None:
    data = labelled[0][0]
    head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    def metric(name: str) -> float:
        lines = observer.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f'{name}{{model="xception"'))

    with server.client() as observer:
        before = metric("inferception_disconnected_total")
        leaving = [server.connect() for _ in range(8)]
        for connection in leaving:
            connection.sendall(request)
        for connection in leaving:
            connection.close()
        patience = time.monotonic() + 30
        while metric("inferception_disconnected_total") == before or metric("inferception_queue_bytes"):
            assert time.monotonic() < patience
        assert metric("inferception_queue_depth") == 0


def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: httpx2.Client) -> None:
    answer = classify(client, png(), timeout_ms=1)
    assert_problem(answer, 429, "deadline")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_deadline_that_passes_in_the_queue_is_answered_then(client: httpx2.Client, server: Server) -> None:
    """Later requests of higher priority keep an admitted request out of every batch before its deadline."""
    alone_ms = client.get("/models/xception").json()["batch_ms"]["1"]
    # The request is admitted with about 6 batches of one image ahead of it, which take less than its 18 batch times.
    # The requests that come later take more than 50.
    timeout_ms = int(18 * alone_ms)

    def request(priority: str, timeout_ms: int, photo: bytes) -> bytes:
        head = f"POST /classify?model=xception&timeout_ms={timeout_ms} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        return f"{head}X-Priority: {priority}\r\nContent-Length: {len(photo)}\r\n\r\n".encode() + photo

    urgent = request("high", 60_000, png())
    # Decoding the large picture takes as long as several batches. By then the other requests are in the queue.
    patient = request("low", timeout_ms, png(5000, 5000))
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(64)]
        for i, connection in enumerate(connections):  # one thread sends all, so they come in this order
            connection.sendall(patient if i == 4 else urgent)
        low = connections.pop(4)
        status, body = received(low)
        assert status == "HTTP/1.1 504 Gateway Timeout"
        assert json.loads(body)["type"] == "urn:inferception:error:deadline-exceeded"
        assert not select.select(connections[-1:], [], [], 0)[0], "it was answered after all that came later"
        assert {received(connection)[0] for connection in connections} == {"HTTP/1.1 200 OK"}
