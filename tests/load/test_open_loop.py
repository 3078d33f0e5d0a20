"""The client against a server that does as it is told, and holds its answers back while its gate is closed."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.load.client import IDLE_S, Client, Connection, Error, Kind, Sample, Workload
from tests.load.open_loop import closed_loop, open_loop, poisson

pytestmark = pytest.mark.anyio
PATIENCE_S = 10.0  # a test that hangs fails after this

Answer = Callable[[asyncio.StreamWriter], None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Stub:
    """What the server is told and what it saw."""

    answer: Answer
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reads_bodies: bool = True
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    left: int = 0
    handlers: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.add(asyncio.current_task())  # type: ignore[arg-type] # there is one
        self.connections += 1
        with closing(writer):
            while head := await self._read(reader):
                self.requests.append(head)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                await self._gate_or_gone(reader)
                self.in_flight -= 1
                if reader.at_eof():
                    self.left += 1
                    return
                self.answer(writer)
                while not self.reads_bodies and await reader.read(1 << 20):
                    pass

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        return head + (await reader.readexactly(length) if self.reads_bodies else b"")

    async def _gate_or_gone(self, reader: asyncio.StreamReader) -> None:
        while not self.gate.is_set() and not reader.at_eof():
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(answer: Answer, *, is_open: bool = True, reads_bodies: bool = True) -> AsyncIterator[Stub]:
    stub = Stub(answer, reads_bodies=reads_bodies)
    if is_open:
        stub.gate.set()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield stub
    finally:
        server.close()
        for handler in stub.handlers:
            handler.cancel()
        await asyncio.gather(*stub.handlers, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def response(status: int, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def named(label: str) -> bytes:
    return json.dumps({"predictions": [{"label": label, "probability": 1.0}]}).encode()


def writes(*parts: bytes) -> Answer:
    """Answer in these parts, and keep the connection."""

    def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)

    return answer


def writes_and_closes(part: bytes) -> Answer:
    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        writer.close()

    return answer


def resets(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


GOOD = writes(response(200, named("cup")))


def workload(stub: Stub, data: bytes = b"jpeg", **options: Any) -> Workload:
    return Workload(stub.url, [Sample(data, "cup")], "xception", **options)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_arrivals_are_poisson_and_repeatable() -> None:
    arrivals = poisson(100, 100, seed=1)
    gaps = [late - early for early, late in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 100, rel=0.05)
    assert variance == pytest.approx(mean**2, rel=0.1)  # evenly spaced arrivals have none
    assert 0 < arrivals[0] < arrivals[-1] < 100
    assert poisson(100, 100, seed=1) == arrivals
    assert poisson(100, 100, seed=2) != arrivals


async def test_a_stalled_server_holds_nothing_back_and_its_stall_is_in_every_latency() -> None:
    arrivals = [i / 1000 for i in range(20)]
    async with serving(GOOD, is_open=False) as stub:
        start = now()
        run = asyncio.create_task(open_loop(workload(stub), arrivals, start))
        await until(lambda: len(stub.requests) == len(arrivals))  # a client that waits for answers never gets there
        opened = now()
        stub.gate.set()
        outcomes = await run
    assert [outcome.intended for outcome in outcomes] == [start + arrival for arrival in arrivals]
    assert all(outcome.kind == "right" for outcome in outcomes)
    assert all(outcome.latency >= opened - outcome.intended for outcome in outcomes)


async def test_a_late_client_counts_its_own_delay() -> None:
    async with serving(GOOD) as stub:
        (outcome,) = await open_loop(workload(stub), [0.0], start=now() - 5)
    assert outcome.sent - outcome.intended >= 5
    assert outcome.latency >= 5
    assert outcome.sent <= outcome.first_byte <= outcome.finished


async def test_a_closed_loop_waits_for_each_answer() -> None:
    async with serving(GOOD) as stub:
        outcomes = await closed_loop(workload(stub), clients=3, seconds=0.05)
    assert stub.most_in_flight <= 3
    assert stub.connections == 3
    assert len(outcomes) == len(stub.requests) >= 3
    assert all(outcome.kind == "right" for outcome in outcomes)


async def test_what_goes_over_the_wire() -> None:
    data = bytes(range(256))
    async with serving(GOOD) as stub:
        await open_loop(workload(stub, data, timeout_ms=1500, priority="low"), [0.0], now())
    head, _, body = stub.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /classify?model=xception&top_k=1&timeout_ms=1500 HTTP/1.1"
    assert {"Content-Type: image/jpeg", "Content-Length: 256", "X-Priority: low"} < set(headers)
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
    body = bytes(32_000_000)  # more than the buffers of both sockets hold
    async with serving(writes(response(429)), reads_bodies=False) as stub:
        with closing(Client(workload(stub, body))) as client:
            outcomes = [await client.ask(now()) for _ in range(2)]
    assert [outcome.kind for outcome in outcomes] == ["refused"] * 2
    assert stub.connections == 2  # the rest of the first body is in the first one's way


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


async def test_vanishing_clients_close_their_socket_and_the_others_are_answered() -> None:
    asked = 50
    async with serving(GOOD, is_open=False) as stub:
        load = workload(stub, vanishing=0.3, vanish_within_s=0.05)
        run = asyncio.create_task(open_loop(load, [0.0] * asked, now()))
        await until(lambda: len(stub.requests) == asked and stub.left >= 5)
        stub.gate.set()
        outcomes = await run
        vanished = sum(outcome.kind == "vanished" for outcome in outcomes)
        await until(lambda: stub.in_flight == 0)
    assert 5 <= stub.left <= vanished <= asked / 2
    assert sum(outcome.kind == "right" for outcome in outcomes) == asked - vanished
    assert all(outcome.latency <= 0.05 + PATIENCE_S for outcome in outcomes if outcome.kind == "vanished")
