"""uvicorn's HTTP connection with the limits it lacks: on heads, on the time of a request, on connections.

``Body`` answers a slow or large body with its own problem; what is cut off here never gets that far: a head that
trickles or has no end, and a body that nobody reads any more.

A request finds in its state the future ``connection_lost``, which is done once its client has gone.
"""

from __future__ import annotations

import asyncio
import functools

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.http.problems import problem, problem_response
from service.metrics import Metrics

_MAX_HEAD_BYTES = 64 * 1024


async def _unless_health(refuse: ASGIApp, serve: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse all but health checks: a server with too many clients is alive, and must not be restarted for it."""
    await (serve if scope["path"].startswith("/health/") else refuse)(scope, receive, send)


def bounded_connection(max_connections: int, arrival_s: float, metrics: Metrics) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol class, bounded.

    A connection is closed when a request, or the first byte of the first one, takes longer than ``arrival_s`` seconds
    to arrive. Connections beyond ``max_connections`` are answered 503; beyond twice as many they are closed unheard.
    """
    full = problem_response(
        problem(503, f"all {max_connections} connections are in use", "too-many-connections"),
        {"Retry-After": "1", "Connection": "close"},
    )

    class BoundedConnection(HttpToolsProtocol):
        _arrival: asyncio.TimerHandle
        _lost: asyncio.Future[None]
        _in_head = True
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            super().connection_made(transport)
            self._lost = self.loop.create_future()
            self._arrival = self.loop.call_later(arrival_s, self._overdue)
            if len(self.connections) > max_connections:
                metrics.connections_refused.labels("too many").inc()
            if len(self.connections) > 2 * max_connections:
                transport.abort()
            elif len(self.connections) > max_connections:
                self.app = functools.partial(_unless_health, full, self.app)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrival.cancel()
            self._lost.set_result(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._arrival.cancelled():  # bytes between requests have ended uvicorn's wait for the next one
                self._arrival = self.loop.call_later(arrival_s, self._overdue)
            self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
            if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, f"the request's head has more than the {_MAX_HEAD_BYTES} bytes allowed")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["state"]["connection_lost"] = self._lost
            self._in_head = True
            self._arrival.cancel()
            self._arrival = self.loop.call_later(arrival_s, self._overdue)

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._arrival.cancel()
            super().on_message_complete()
            if not self.pipeline:  # whose requests wait unread
                self.flow.resume_reading()  # a large body has paused it, and who doesn't read hears of no end

        def _overdue(self) -> None:
            if self.flow.read_paused:  # it is the server that is not reading
                self._arrival = self.loop.call_later(arrival_s, self._overdue)
            else:
                metrics.connections_refused.labels("no request in time").inc()
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _refuse(self, status: int, detail: str) -> None:
            """Answer a request that never reached the application, and close."""
            metrics.connections_refused.labels("bad request").inc()
            body = problem_response(problem(status, detail)).body
            head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % len(body) + body)
            self.transport.close()

    return BoundedConnection
