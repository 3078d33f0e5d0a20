"""A server that gives the answers chosen by a test, and holds them back while its gate is closed."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from bench.repository import Photo
from bench.workload import Workload

PATIENCE_S = 10.0  # a test that hangs fails after so many seconds

Answer = Callable[[asyncio.StreamWriter], None]


@dataclass
class Stub:
    """The server's instructions, and the requests that it saw."""

    answer: Answer
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reads_bodies: bool = True
    address: tuple[str, int] = ("127.0.0.1", 0)
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
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0)
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
    stub.address = server.sockets[0].getsockname()
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
    """Write the answer in these parts, and keep the connection open."""

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
    return Workload(stub.address, [Photo(data, "cup")], "xception", **options)


def now() -> float:
    return asyncio.get_running_loop().time()
