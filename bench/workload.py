"""The requests of a workload. Each request ends in exactly one ``Outcome``, also if it fails."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import httptools

from bench.client import Connection, classify_request
from bench.repository import Photo

IDLE_S = 3.0  # a connection that is idle for longer is not used again, because the server may be closing it

Kind = Literal["right", "wrong", "refused", "expired", "failed", "unanswered", "vanished"]
Error = Literal["unreachable", "reset", "closed", "garbled", "timeout", "vanished"]


@dataclass(slots=True)
class Outcome:
    """The outcome of one request. Times are seconds on the event loop's clock, and NaN for events that never came."""

    intended: float
    sent: float = math.nan
    first_byte: float = math.nan
    finished: float = math.nan
    status: int | None = None
    retry_after: str | None = None
    version: int | None = None
    right: bool = False
    error: Error | None = None

    @property
    def latency(self) -> float:
        """Seconds from the request's intended time to the last byte of its answer, or to its failure."""
        return self.finished - self.intended

    @property
    def says_when(self) -> bool:
        """Whether the answer's Retry-After names whole seconds, at least one."""
        return self.retry_after is not None and self.retry_after.isdigit() and int(self.retry_after) >= 1

    @property
    def kind(self) -> Kind:
        """The outcome in one word. "right" means a right label, within the deadline or not."""
        if self.error is not None:
            return "vanished" if self.error == "vanished" else "unanswered"
        if self.status == 200:
            return "right" if self.right else "wrong"
        return "refused" if self.status in (429, 503) else "expired" if self.status == 504 else "failed"


@dataclass(frozen=True)
class Workload:
    """The requests to send, and the server's address.

    ``vanishing`` is the share of clients that close their socket within ``vanish_within_s`` seconds after sending.
    ``patience_s`` is the time in seconds after which the other clients give up. ``numbered`` labels end with the number
    of the version that gave them.
    """

    address: tuple[str, int]
    photos: Sequence[Photo]
    model: str
    timeout_ms: int | None = None
    vanishing: float = 0.0
    vanish_within_s: float = 1.0
    patience_s: float = 30.0
    seed: int = 0
    numbered: bool = False

    def requests(self) -> list[bytes]:
        """Return the bytes of one request per photo."""
        deadline = {"timeout_ms": self.timeout_ms} if self.timeout_ms else {}
        query = {"model": self.model, "top_k": 1} | deadline
        return [classify_request(data, query) for data, _ in self.photos]


class Client:
    """Sends a workload's requests over as few connections as possible. Close the client after use."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._random = random.Random(workload.seed)  # noqa: S311 - repeatable, not secret
        self._requests = list(zip(workload.requests(), workload.photos, strict=True))
        self._idle: deque[Connection] = deque()

    async def ask(self, intended: float) -> Outcome:
        """Send one request of the workload, whose intended time is ``intended``."""
        loop, load, outcome = asyncio.get_running_loop(), self._workload, Outcome(intended)
        request, photo = self._random.choice(self._requests)
        vanishes = self._random.random() < load.vanishing
        given_up_after = self._random.uniform(0, load.vanish_within_s) if vanishes else load.patience_s
        connection = None
        try:
            async with asyncio.timeout(load.patience_s) as patience:
                connection = await self._connect()
                pending, outcome.sent = connection.send(request), loop.time()
                patience.reschedule(outcome.sent + given_up_after)
                answer = await pending
        except TimeoutError:
            outcome.error = "vanished" if vanishes and connection else "timeout"
        except ConnectionError as error:
            kinds: dict[type, Error] = {ConnectionRefusedError: "unreachable", ConnectionAbortedError: "closed"}
            outcome.error = kinds.get(type(error), "reset")
        except httptools.HttpParserError:
            outcome.error = "garbled"
        else:
            self._idle.append(connection)
            outcome.status, outcome.retry_after = answer.status, answer.headers.get("retry-after")
            outcome.first_byte, outcome.finished = answer.first_byte, answer.finished
            if answer.status == 200:
                given = json.loads(answer.body)
                outcome.version = given.get("version")
                right = f"{photo.label} {outcome.version}" if load.numbered else photo.label
                outcome.right = given["predictions"][0]["label"] == right
            return outcome
        outcome.finished = loop.time()
        if connection:
            connection.transport.abort()
        return outcome

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()  # the one used last, so that spare connections grow old and are closed
            if not connection.transport.is_closing() and loop.time() - connection.used < IDLE_S:
                return connection
            connection.transport.abort()
        return (await loop.create_connection(Connection, *self._workload.address))[1]

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._idle:
            connection.transport.abort()
