from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from service.http.access import Access
from service.runtime import Runtime
from service.settings import Settings


async def nobody_reads() -> Message:
    raise AssertionError("nobody reads")


@pytest.mark.anyio
async def test_a_response_that_is_sent_again_is_named_once() -> None:
    """The id and the timing belong to a request, not to the response object."""
    access, sent = Access(PlainTextResponse("the same each time"), Runtime(Settings())), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    for name in (b"first", b"second"):
        headers = [(b"x-request-id", name)]
        await access({"type": "http", "method": "GET", "path": "/", "headers": headers}, nobody_reads, send)
    starts = [message["headers"] for message in sent if message["type"] == "http.response.start"]
    assert [dict(headers)[b"x-request-id"] for headers in starts] == [b"first", b"second"]
    assert [[name for name, _ in headers].count(b"x-request-id") for headers in starts] == [1, 1]


@pytest.mark.anyio
async def test_an_unexpected_error_has_an_id_for_the_log() -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    sent = list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"mine")]}
    with pytest.raises(ZeroDivisionError):  # for the server's log
        await Access(fails, Runtime(Settings()))(scope, nobody_reads, send)
    start, body = sent
    assert start["status"] == 500
    assert dict(start["headers"])[b"x-request-id"] == b"mine"
    assert b"ZeroDivision" not in body["body"]
