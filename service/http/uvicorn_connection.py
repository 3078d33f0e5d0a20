"""uvicorn's HTTP connection with the limits it lacks: on heads, on the time of a request, on connections.

``Body`` answers a slow or large body with its own problem; what is cut off here never gets that far: a head that
trickles or has no end, and a body that nobody reads any more.

The rules:
- The parser gets a head or a part of a body at a time, and nothing while a complete request awaits its answer.
- Reading pauses while the parser may not have what was read. So a connection holds one read and one request.
- What is no request is answered in its turn, as a problem, and ends the connection.
"""

import asyncio
import functools
import re
import socket
from collections.abc import Callable

import httptools
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.http.problems import problem, problem_response
from service.metrics import Metrics

_MAX_FRAMING_BYTES = 64 * 1024
_END = b"\r\n\r\n"  # of a head, and of a chunked body
_UPGRADE = re.compile(rb"(?i)(?<=\r\n)upgrade:")
_LONGEST = len("\r\nupgrade:")  # bytes that the parser must not get in parts
_LINGER_S = 1.0  # a close before the client has sent all would make its system throw our answer away


async def _unless_health(refuse: ASGIApp, serve: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse all but health checks: a server with too many clients is alive, and must not be restarted for it."""
    path = scope["path"].removeprefix(scope["root_path"])
    await (serve if path.startswith("/health/") else refuse)(scope, receive, send)


class _Flow(FlowControl):
    """Offers the parser what was read before the transport reads more."""

    def __init__(self, transport: asyncio.Transport, offer: Callable[[], object]) -> None:
        super().__init__(transport)
        self._offer = offer

    def resume_reading(self) -> None:
        self.read_paused = False
        self._offer()


class _BoundedConnection(HttpToolsProtocol):
    connections: set["_BoundedConnection"]  # type: ignore[assignment] # of all that uvicorn has, only these serve
    _max_connections: int
    _arrival_s: float
    _metrics: Metrics
    _full: Response  # to a connection too many
    _arrival: asyncio.TimerHandle
    _in_body = False
    _body_left = 0  # bytes, where the head says how many
    _refused = False
    _framing = 0  # bytes since the message began or a byte of its body came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, functools.partial(self.loop.call_soon, self._feed))
        self._unfed = bytearray()
        self._arrival = self.loop.call_later(self._arrival_s, self._overdue)
        # The kernel ends a connection whose client takes nothing of its answers for this long.
        unread_ms = int(self._arrival_s * 1e3)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
        if len(self.connections) > self._max_connections:
            self._metrics.connections_refused.labels("too many").inc()
            self.app = functools.partial(_unless_health, self._full, self.app)
        if len(self.connections) > 2 * self._max_connections:
            free = (other for other in self.connections if other.idle and not other.transport.is_closing())
            next((other for other in free if other is not self), self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrival.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._unfed += data
        self._feed()
        if self.idle and self._arrival.cancelled():  # uvicorn's wait for the next request has ended
            self._arrival = self.loop.call_later(self._arrival_s, self._overdue)

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _feed(self) -> None:
        """Give the parser its next piece, and see after other connections whether there is one more."""
        if self._refused or self.transport.is_closing():
            return
        unanswered = not self.idle and not self.cycle.more_body
        if self.flow.read_paused or (unanswered and self._unfed):
            self.transport.pause_reading()
        elif piece := self._piece():
            self.transport.pause_reading()
            self.loop.call_soon(self._feed)
            self._framing += len(piece)
            super().data_received(piece)
            if self._framing > _MAX_FRAMING_BYTES and not self._refused:
                self.send_400_response("")
        else:
            self.transport.resume_reading()

    def _piece(self) -> bytes:
        """Take what the parser may have next: never the end of one message and the beginning of another."""
        size = self._body_left
        if not size:
            end = self._unfed.find(_END)
            size = len(self._unfed) if end < 0 else end + len(_END)
            if not self._in_body:  # RFC 9110, 7.8: Upgrade may be ignored; httptools would skip the body
                self._unfed[:size] = _UPGRADE.sub(b"Ignored:", self._unfed[:size])
            if end < 0 and (begun := self._unfed.find(b"\r", max(0, size - _LONGEST + 1))) >= 0:
                size = begun  # what may become one of the two waits for its rest
        piece = bytes(memoryview(self._unfed)[:size])
        del self._unfed[:size]
        return piece

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arrival.cancel()
        self._arrival = self.loop.call_later(self._arrival_s, self._overdue)

    def on_headers_complete(self) -> None:
        too_long, version = self._framing > _MAX_FRAMING_BYTES, self.parser.get_http_version()
        if too_long or version not in ("1.0", "1.1") or self.parser.should_upgrade():  # the last is CONNECT
            raise httptools.HttpParserError  # so uvicorn calls send_400_response
        self._in_body = True
        self._body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._arrival.cancel()
        self._in_body, self._framing = False, 0
        super().on_message_complete()

    def _overdue(self) -> None:
        if not self.idle:  # the application has its own patience with a body that it reads
            self._arrival = self.loop.call_later(self._arrival_s, self._overdue)
        else:
            self._metrics.connections_refused.labels("no request in time").inc()
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what never reached the application, and close. uvicorn calls this for what is no HTTP."""
        self._refused = True
        self._metrics.connections_refused.labels("bad request").inc()
        answer = problem(400, msg)
        if self._framing > _MAX_FRAMING_BYTES:
            what = "the request's head, or what stands between the parts of its body,"
            answer = problem(431, f"{what} has more than the {_MAX_FRAMING_BYTES} bytes allowed")
        if not self._in_body or not self.cycle.response_started:
            body = problem_response({}, answer).body
            head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[answer["status"]] + head % len(body) + body)
        if self._in_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write_eof()
        self.transport.resume_reading()
        self.loop.call_later(_LINGER_S, self.transport.close)


def bounded_connection(max_connections: int, arrival_s: float, metrics: Metrics) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol class, bounded.

    A connection is closed when a request, or the first byte of the first one, takes longer than ``arrival_s`` seconds
    to arrive, or when its client takes nothing of its answers for as long. Connections beyond ``max_connections`` are
    answered 503. Beyond twice as many, a new connection takes the place of an idle one.
    """
    full = problem_response(
        {},
        problem(503, f"all {max_connections} connections are in use", "too-many-connections"),
        {"Retry-After": "1", "Connection": "close"},
    )

    class BoundedConnection(_BoundedConnection):
        _max_connections, _arrival_s, _metrics, _full = max_connections, arrival_s, metrics, full

    return BoundedConnection
