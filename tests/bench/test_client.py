"""The bytes of a request, the name of each outcome, and the reuse of connections."""

from __future__ import annotations

import math
from contextlib import closing

import pytest

from bench.client import Connection, get
from bench.traffic import open_loop
from bench.workload import IDLE_S, Client, Error, Kind
from tests.bench.stub import (
    GOOD,
    Answer,
    named,
    now,
    resets,
    response,
    serving,
    until,
    workload,
    writes,
    writes_and_closes,
)

pytestmark = pytest.mark.anyio


async def test_what_goes_over_the_wire() -> None:
    data = bytes(range(256))
    async with serving(GOOD) as stub:
        await open_loop(workload(stub, data, timeout_ms=1500), [0.0], now())
    head, _, body = stub.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /classify?model=xception&top_k=1&timeout_ms=1500 HTTP/1.1"
    assert {"Content-Type: image/jpeg", "Content-Length: 256"} < set(headers)
    assert body == data


@pytest.mark.parametrize(
    ("answer", "kind", "error"),
    [
        (GOOD, "right", None),
        (writes(*(bytes([byte]) for byte in response(200, named("cup")))), "right", None),
        (writes(response(200, named("fork"))), "wrong", None),
        (writes(response(429)), "refused", None),
        (writes(response(503)), "refused", None),
        (writes(response(504)), "expired", None),
        (writes(response(500)), "failed", None),
        (writes_and_closes(b""), "unanswered", "closed"),
        (writes_and_closes(response(200, named("cup"))[:-1]), "unanswered", "closed"),
        (resets, "unanswered", "reset"),
        (writes(b"SSH-2.0\r\n"), "unanswered", "garbled"),
    ],
)
async def test_outcomes_by_what_the_server_does(answer: Answer, kind: Kind, error: Error | None) -> None:
    async with serving(answer) as stub:
        (outcome,) = await open_loop(workload(stub), [0.0], now())
    assert (outcome.kind, outcome.error) == (kind, error)
    assert outcome.latency > 0
    assert (outcome.status is None) == (kind == "unanswered")


@pytest.mark.parametrize(
    ("value", "says_when"), [("1", True), ("30", True), ("0", False), ("soon", False), ("", False)]
)
async def test_retry_after_names_whole_seconds(value: str, says_when: bool) -> None:
    async with serving(writes(response(429, headers=f"RETRY-AFTER: {value}\r\n"))) as stub:
        (outcome,) = await open_loop(workload(stub), [0.0], now())
    assert outcome.retry_after == value
    assert outcome.says_when == says_when


async def test_a_refusal_without_retry_after_does_not_say_when() -> None:
    async with serving(writes(response(429))) as stub:
        (outcome,) = await open_loop(workload(stub), [0.0], now())
    assert not outcome.says_when


async def test_nobody_listens() -> None:
    async with serving(GOOD) as stub:
        pass
    (outcome,) = await open_loop(workload(stub), [0.0], now())
    assert (outcome.kind, outcome.error) == ("unanswered", "unreachable")
    assert math.isnan(outcome.sent)


async def test_no_answer_within_the_clients_patience() -> None:
    async with serving(GOOD, is_open=False) as stub:
        (outcome,) = await open_loop(workload(stub, patience_s=0.02), [0.0], now())
        await until(lambda: stub.left == 1)
    assert (outcome.kind, outcome.error) == ("unanswered", "timeout")
    assert outcome.latency >= 0.02


async def test_a_refusal_that_comes_before_the_body_is_sent() -> None:
    body = bytes(32_000_000)  # more bytes than the buffers of both sockets hold
    async with serving(writes(response(429)), reads_bodies=False) as stub:
        with closing(Client(workload(stub, body))) as client:
            outcomes = [await client.ask(now()) for _ in range(2)]
    assert [outcome.kind for outcome in outcomes] == ["refused"] * 2
    assert stub.connections == 2  # the first connection is blocked by the rest of its body


async def test_connections_are_kept_and_used_again() -> None:
    async with serving(GOOD) as stub:
        with closing(Client(workload(stub))) as client:
            outcomes = [await client.ask(now()) for _ in range(3)]
    assert [outcome.kind for outcome in outcomes] == ["right"] * 3
    assert stub.connections == 1


async def test_connections_that_the_server_closes_are_not_used_again() -> None:
    async with serving(writes(response(200, named("cup"), "Connection: close\r\n"))) as stub:
        with closing(Client(workload(stub))) as client:
            outcomes = [await client.ask(now()) for _ in range(3)]
    assert [outcome.kind for outcome in outcomes] == ["right"] * 3
    assert stub.connections == 3


async def test_connections_that_were_closed_or_grew_old_while_idle_are_not_used_again() -> None:
    def idle(client: Client) -> Connection:
        (connection,) = client._idle
        return connection

    async with serving(writes_and_closes(response(200, named("cup")))) as stub:
        with closing(Client(workload(stub))) as client:
            await client.ask(now())
            await until(idle(client).transport.is_closing)
            assert (await client.ask(now())).kind == "right"
    assert stub.connections == 2

    async with serving(GOOD) as stub:
        with closing(Client(workload(stub))) as client:
            await client.ask(now())
            idle(client).used -= IDLE_S
            assert (await client.ask(now())).kind == "right"
    assert stub.connections == 2


@pytest.mark.parametrize("parts", [(response(200, named("cup")) + response(408),), (response(200, named("cup")), b"?")])
async def test_what_nobody_asked_for_spoils_no_outcome(parts: tuple[bytes, ...]) -> None:
    async with serving(writes(*parts)) as stub:
        with closing(Client(workload(stub))) as client:
            outcomes = [await client.ask(now()) for _ in range(2)]
    assert [(outcome.status, outcome.kind) for outcome in outcomes] == [(200, "right")] * 2


async def test_what_a_page_holds_is_read() -> None:
    async with serving(writes(response(200, b"{}"))) as stub:
        assert await get(stub.address, "/models") == b"{}"
    assert stub.requests[0].startswith(b"GET /models HTTP/1.1\r\n")
    async with serving(writes(response(404, b"none"))) as stub:
        with pytest.raises(RuntimeError, match="/models answered 404: b'none'"):
            await get(stub.address, "/models")
