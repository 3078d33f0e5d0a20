"""Reads a request's body within its limits, raw or as multipart."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self

from starlette.requests import Request

from service import errors
from service.budget import Budget
from service.http.coding import decoder
from service.http.form import FIELD, File, read_form
from service.settings import Settings

_ANY_BYTES = ("", "application/octet-stream", "binary/octet-stream")  # what clients say who don't know

# What OpenAPI says of such a body.
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


@dataclass
class Body:
    """The body of one request. All share a budget of bytes; leave the ``with`` block to give this one's back."""

    request: Request
    settings: Settings
    budget: Budget
    _held: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.budget.give_back(self._held)

    async def files(self) -> list[File]:
        """Return the raw body as one nameless file, or the parts of a multipart body.

        Raises BodyTooLarge and BodyTimeout while reading, QueueFull when too many bytes are in flight already,
        UnsupportedType, UnsupportedEncoding, InvalidImage for an empty body, InvalidParameter for a body that breaks
        its format or ends early; ClientGone when the client goes.
        """
        content_type = self.request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await read_form(content_type, self._chunks(), self.settings.max_files)
        if kind.startswith("image/") or kind in _ANY_BYTES:
            data = await self.whole()
            if not data:
                raise errors.InvalidImage("the body is empty: send an image")
            return [File("", data)]
        hint = (
            "; with curl, add -H 'Content-Type: image/jpeg' or use -F file=@photo.jpg" if "urlencoded" in kind else ""
        )
        raise errors.UnsupportedType(f"{kind} is neither image/* nor multipart/form-data{hint}")

    async def whole(self) -> bytearray:
        """Return the body, whatever its type. Raises as ``files`` does."""
        data = bytearray()
        async for chunk in self._chunks():
            data += chunk
        return data

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body without its Content-Encoding. What is sent is bounded, and so is what that becomes."""
        decode = decoder(", ".join(self.request.headers.getlist("content-encoding")))
        self._check_size(int(self.request.headers.get("content-length", 0)))
        started, received, more = asyncio.get_running_loop().time(), 0, True
        while more:
            chunk, more = await self._received(started, received)
            received += len(chunk)
            self._check_size(received)
            for piece in decode(chunk, more):
                self._check_size(self._held + len(piece))
                if not self.budget.try_take(len(piece)):
                    raise errors.QueueFull(f"{self.budget.held} bytes of bodies are in flight", retry_after=1.0)
                self._held += len(piece)
                yield piece
                await asyncio.sleep(0)  # a chunk may become many pieces: others have their turns between them

    async def _received(self, started: float, received: int) -> tuple[bytes, bool]:
        """Return the next bytes and whether more will come, of a body that sent ``received`` since ``started``."""
        pause_s, rate = self.settings.body_timeout_ms / 1e3, self.settings.min_body_rate
        due = min(asyncio.get_running_loop().time(), started + received / rate) + pause_s
        try:
            async with asyncio.timeout_at(due):
                message = await self.request.receive()
        except TimeoutError:
            reason = f"nothing came for {pause_s:g} s, or less than {rate} bytes a second"
            raise errors.BodyTimeout(f"the body did not arrive: {reason}") from None
        if message["type"] == "http.disconnect":
            raise errors.ClientGone
        return message.get("body", b""), message.get("more_body", False)

    def _check_size(self, size: int) -> None:
        if size > self.settings.max_body_bytes:
            raise errors.BodyTooLarge(f"the body has more than the {self.settings.max_body_bytes} bytes allowed")
