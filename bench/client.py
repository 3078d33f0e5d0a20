"""An HTTP client for load tests that costs little processor time beside the measured server.

The client shares its cores with the server. So the client is a bare asyncio protocol with httptools' C parser: a
request with a photo of 180 kB costs 0.5 ms of processor time, a third of its cost through httpx2.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast
from urllib.parse import urlencode

import httptools


class Answer(NamedTuple):
    """A whole HTTP response. Times are seconds on the event loop's clock. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    first_byte: float
    finished: float


def classify_request(image: bytes, query: Mapping[str, object]) -> bytes:
    """Return the bytes of a ``POST /classify`` request with a JPEG file."""
    return _post(f"/classify?{urlencode(query)}", {"Content-Type": "image/jpeg"}, image)


def infer_request(model: str, datatype: str, shape: Sequence[int], tensor: bytes, timeout_ms: int) -> bytes:
    """Return the bytes of a request to infer, as tritonclient sends it, with the binary tensor ``images``."""
    given = {"name": "images", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(tensor)}}
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    head = json.dumps({"parameters": {"timeout": timeout_ms * 1000}, "inputs": [given], "outputs": [wanted]}).encode()
    return _post(f"/v2/models/{model}/infer", {"Inference-Header-Content-Length": len(head)}, head + tensor)


def _post(path: str, headers: Mapping[str, object], body: bytes) -> bytes:
    lines = {"Host": "inferception", **headers, "Content-Length": len(body)}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    return f"{head}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A keep-alive connection that carries one request at a time. httptools calls the ``on_`` methods."""

    transport: asyncio.Transport
    used: float  # the time when the last answer was complete
    _parser: httptools.HttpResponseParser
    _headers: dict[str, str]
    _body: bytearray
    _first_byte: float
    _answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Send ``request`` and return the future answer.

        The future fails with ConnectionAbortedError if the server closes the connection in order, with
        ConnectionResetError if the connection breaks, or with httptools.HttpParserError.
        """
        if self.transport.is_closing():
            raise ConnectionAbortedError
        self._parser, self._headers, self._body = httptools.HttpResponseParser(self), {}, bytearray()
        self._first_byte = math.nan
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._answer is None or self._answer.done():  # no request waits for these bytes
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
        """Set the result of the future answer."""
        if self._answer is None or self._answer.done():  # a second answer to one request, or a late answer
            self.transport.abort()
            return
        self.used = asyncio.get_running_loop().time()
        # A refusal may come before the whole body is sent. The rest of the body would delay the next request.
        if not self._parser.should_keep_alive() or self.transport.get_write_buffer_size():
            self.transport.abort()
        self._answer.set_result(
            Answer(self._parser.get_status_code(), self._headers, bytes(self._body), self._first_byte, self.used)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the future answer, if a request waits for one."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError() if exc else ConnectionAbortedError())


async def get(address: tuple[str, int], path: str) -> bytes:
    """Return the body of ``path``. Raises ConnectionError, and RuntimeError for a status other than 200."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    try:
        answer = await connection.send(f"GET {path} HTTP/1.1\r\nHost: inferception\r\n\r\n".encode())
    finally:
        connection.transport.abort()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {answer.body!r}")
    return answer.body
