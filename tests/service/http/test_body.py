"""A body is read as fast as its client sends it, within bounds. The loop's clock jumps, so that no test waits."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.budget import Budget
from service.errors import BodyTimeout, BodyTooLarge, QueueFull
from service.http.body import Body
from service.settings import Settings

pytestmark = pytest.mark.anyio
KB = 1000
PAUSE_S = 5  # body_timeout_ms by default


async def read(
    sent: Sequence[tuple[float, bytes]], monkeypatch: pytest.MonkeyPatch, coding: bytes = b"", budget: int = 20_000 * KB
) -> int:
    """Send the pieces of a body, each some seconds after the one before, and return how many bytes were read."""
    loop, left = asyncio.get_running_loop(), list(sent)

    async def receive() -> Message:
        seconds, piece = left.pop(0)
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now + seconds)
        for _ in range(3):  # turns in which a timer that is due runs
            await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    headers = [(b"content-type", b"image/jpeg"), (b"content-encoding", coding)]
    bytes_in_flight = Budget(budget)
    try:
        with Body(Request({"type": "http", "headers": headers}, receive), Settings(), bytes_in_flight) as body:
            (file,) = await body.files()
    finally:
        assert bytes_in_flight.held == 0
    return len(file.data)


async def test_a_slow_phone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(60 * [(1, bytes(32 * KB))], monkeypatch) == 60 * 32 * KB


async def test_pauses_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(5 * [(PAUSE_S - 1, bytes(64 * KB))], monkeypatch) == 5 * 64 * KB


@pytest.mark.parametrize(
    "sent",
    [
        [(PAUSE_S + 1, bytes(KB))],  # nothing comes
        [(0, bytes(1000 * KB)), (PAUSE_S + 1, bytes(KB))],  # nothing comes any more
        60 * [(1, b"x")],  # bytes trickle
        60 * [(1, bytes(7 * KB))],  # less than 8 kB a second
    ],
)
async def test_who_stops_or_trickles_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[float, bytes]]
) -> None:
    with pytest.raises(BodyTimeout, match="nothing came for 5 s, or less than 8000 bytes a second"):
        await read(sent, monkeypatch)


async def test_what_a_body_becomes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read([(0, gzip.compress(bytes(10_000 * KB)))], monkeypatch, b"gzip") == 10_000 * KB
    with pytest.raises(QueueFull):
        await read([(0, gzip.compress(bytes(10_000 * KB)))], monkeypatch, b"gzip", budget=1000 * KB)
    with pytest.raises(BodyTooLarge):
        await read([(0, gzip.compress(bytes(20_001 * KB)))], monkeypatch, b"gzip")


async def test_an_encoded_body_that_becomes_nothing_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    head, blocks = gzip.compress(b"")[:10], 200 * KB * bytes.fromhex("000000ffff")
    with pytest.raises(BodyTooLarge):
        await read([(0, head), *21 * [(0, blocks)]], monkeypatch, b"gzip")
