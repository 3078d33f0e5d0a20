"""Reads a request's body within its limits, raw or as multipart."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple, Self

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service import errors
from service.budget import Budget
from service.settings import Settings

# What OpenAPI says of such a body.
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


class File(NamedTuple):
    """An uploaded file."""

    name: str
    data: bytes


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
        """Return the raw body as one nameless file, or the parts named ``file`` of a multipart body.

        Raises BodyTooLarge and BodyTimeout while reading, QueueFull when too many bytes are in flight already,
        UnsupportedType, InvalidImage for an empty body, InvalidParameter for a multipart body that is broken or has
        no file; ClientGone when the client goes.
        """
        timeout_s = self.settings.body_timeout_ms / 1e3
        self._check_size(int(self.request.headers.get("content-length", 0)))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._files()
        except TimeoutError:
            raise errors.BodyTimeout(f"the body did not arrive within {timeout_s:g} s") from None

    async def _files(self) -> list[File]:
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._multipart()
        if kind.startswith("image/") or kind in ("", "application/octet-stream"):
            data = b"".join([chunk async for chunk in self._chunks()])
            if not data:
                raise errors.InvalidImage("the body is empty: send an image")
            return [File("", data)]
        hint = (
            "; with curl, add -H 'Content-Type: image/jpeg' or use -F file=@photo.jpg" if "urlencoded" in kind else ""
        )
        raise errors.UnsupportedType(f"{kind} is neither image/* nor multipart/form-data{hint}")

    async def _multipart(self) -> list[File]:
        most = self.settings.max_files
        parser = MultiPartParser(self.request.headers, self._chunks(), max_files=most, max_fields=most)
        # The limits bound memory; a temporary file would only be slower.
        parser.spool_max_size = self.settings.max_body_bytes
        try:
            form = await parser.parse()
        except (MultiPartException, UnicodeError) as error:  # the latter for a charset that is none
            raise errors.InvalidParameter(f"the multipart body is broken: {error}") from error
        parts = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        # Some charsets can say halves of characters, which UTF-8 can't.
        files = [File((part.filename or "").encode("utf-8", "replace").decode(), await part.read()) for part in parts]
        await form.close()
        if not files:
            raise errors.InvalidParameter("the multipart body has no part named 'file' with a file name")
        return files

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        more = True
        while more:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                raise errors.ClientGone
            chunk: bytes = message.get("body", b"")
            self._check_size(self._held + len(chunk))
            if not self.budget.try_take(len(chunk)):
                raise errors.QueueFull(f"{self.budget.held} bytes of bodies are in flight", retry_after=1.0)
            self._held += len(chunk)
            yield chunk
            more = message.get("more_body", False)

    def _check_size(self, size: int) -> None:
        if size > self.settings.max_body_bytes:
            raise errors.BodyTooLarge(f"the body has more than the {self.settings.max_body_bytes} bytes allowed")
