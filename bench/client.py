"""An HTTP client for load that costs little beside the server it measures.

The client shares its cores with the server. Hence it is a bare asyncio protocol with httptools' C parser: a request
with a photo of 180 kB costs half a millisecond of processor time, a third of what it costs through httpx2.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlencode

import httptools


class Answer(NamedTuple):
    """A whole HTTP response. Times are seconds on the event loop's clock; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    first_byte: float
    finished: float


def classify_request(image: bytes, query: Mapping[str, object]) -> bytes:
    """Return ``POST /classify`` of a JPEG file, as bytes on the wire."""
    lines = {"Host": "inferception", "Content-Type": "image/jpeg", "Content-Length": len(image)}
    head = f"POST /classify?{urlencode(query)} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    return f"{head}\r\n".encode() + image


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time on it; httptools calls the ``on_`` methods."""

    transport: asyncio.Transport
    used: float  # when the last answer was complete
    _parser: httptools.HttpResponseParser
    _headers: dict[str, str]
    _body: bytearray
    _first_byte: float
    _answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Send ``request``; return the answer to come.

        It fails with ConnectionResetError, ConnectionAbortedError for a connection closed in order, or
        httptools.HttpParserError.
        """
        if self.transport.is_closing():
            raise ConnectionAbortedError
        self._parser, self._headers, self._body = httptools.HttpResponseParser(self), {}, bytearray()
        self._first_byte = math.nan
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._answer is None or self._answer.done():  # nobody asked
            self.transport.abort()
            return
        if math.isnan(self._first_byte):
            self._first_byte = asyncio.get_running_loop().time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.transport.abort()
            if not self._answer.done():
                self._answer.set_exception(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        if self._answer is None or self._answer.done():  # a second answer to one request, or one that came too late
            self.transport.abort()
            return
        self.used = asyncio.get_running_loop().time()
        # A refusal may come while the body is still being sent; the rest of it would only be in the way.
        if not self._parser.should_keep_alive() or self.transport.get_write_buffer_size():
            self.transport.abort()
        self._answer.set_result(
            Answer(self._parser.get_status_code(), self._headers, bytes(self._body), self._first_byte, self.used)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for an answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError() if exc else ConnectionAbortedError())


async def get(address: tuple[str, int], path: str) -> bytes:
    """Return the body of ``path``. Raises ConnectionError, and RuntimeError for another status than 200."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    try:
        answer = await connection.send(f"GET {path} HTTP/1.1\r\nHost: inferception\r\n\r\n".encode())
    finally:
        connection.transport.abort()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {answer.body!r}")
    return answer.body
