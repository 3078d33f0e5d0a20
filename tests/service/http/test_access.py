from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from service.http.access import Access
from service.runtime import Runtime
from service.settings import Settings


@pytest.mark.anyio
async def test_a_response_that_is_sent_again_is_named_once() -> None:
    """The id and the timing belong to a request, not to the response object."""
    access, sent = Access(PlainTextResponse("the same each time"), Runtime(Settings())), list[Message]()

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        sent.append(message)

    for name in (b"first", b"second"):
        headers = [(b"x-request-id", name)]
        await access({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
    starts = [message["headers"] for message in sent if message["type"] == "http.response.start"]
    assert [dict(headers)[b"x-request-id"] for headers in starts] == [b"first", b"second"]
    assert [[name for name, _ in headers].count(b"x-request-id") for headers in starts] == [1, 1]
