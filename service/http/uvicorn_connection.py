"""uvicorn's HTTP connection with the limits it lacks: on heads, on the time of a request, on connections.

``Body`` answers a slow or large body with its own problem; what is cut off here never gets that far: a head that
trickles or has no end, and a body that nobody reads any more.
"""

import asyncio
import functools

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.http.problems import problem, problem_response
from service.metrics import Metrics

_MAX_HEAD_BYTES = 64 * 1024


async def _unless_health(refuse: ASGIApp, serve: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse all but health checks: a server with too many clients is alive, and must not be restarted for it."""
    path = scope["path"].removeprefix(scope["root_path"])
    await (serve if path.startswith("/health/") else refuse)(scope, receive, send)


class _BoundedConnection(HttpToolsProtocol):
    _max_connections: int
    _arrival_s: float
    _metrics: Metrics
    _full: Response  # to a connection too many
    _arrival: asyncio.TimerHandle
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._arrival = self.loop.call_later(self._arrival_s, self._overdue)
        if len(self.connections) > self._max_connections:
            self._metrics.connections_refused.labels("too many").inc()
            self.app = functools.partial(_unless_health, self._full, self.app)
        if len(self.connections) > 2 * self._max_connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrival.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._arrival.cancelled():  # bytes between requests have ended uvicorn's wait for the next one
            self._arrival = self.loop.call_later(self._arrival_s, self._overdue)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the request's head has more than the {_MAX_HEAD_BYTES} bytes allowed")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._arrival.cancel()
        self._arrival = self.loop.call_later(self._arrival_s, self._overdue)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._arrival.cancel()
        super().on_message_complete()

    def _overdue(self) -> None:
        if self.flow.read_paused:  # it is the server that is not reading
            self._arrival = self.loop.call_later(self._arrival_s, self._overdue)
        else:
            self._metrics.connections_refused.labels("no request in time").inc()
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that never reached the application, and close."""
        self._metrics.connections_refused.labels("bad request").inc()
        body = problem_response(problem(status, detail)).body
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


def bounded_connection(max_connections: int, arrival_s: float, metrics: Metrics) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol class, bounded.

    A connection is closed when a request, or the first byte of the first one, takes longer than ``arrival_s`` seconds
    to arrive. Connections beyond ``max_connections`` are answered 503; beyond twice as many they are closed unheard.
    """
    full = problem_response(
        problem(503, f"all {max_connections} connections are in use", "too-many-connections"),
        {"Retry-After": "1", "Connection": "close"},
    )

    class BoundedConnection(_BoundedConnection):
        _max_connections, _arrival_s, _metrics, _full = max_connections, arrival_s, metrics, full

    return BoundedConnection
