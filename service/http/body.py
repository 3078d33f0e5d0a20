"""Reads a request's body within its limits, raw or as multipart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.budget import Budget
from service.errors import BodyTimeout, BodyTooLarge, InvalidImage, InvalidParameter, QueueFull, UnsupportedType
from service.settings import Settings


class File(NamedTuple):
    """An uploaded file."""

    name: str
    data: bytes


class Body:
    """The body of one request. All share a budget of bytes; leave the ``with`` block to give this one's back."""

    def __init__(self, request: Request, settings: Settings, budget: Budget) -> None:
        self._request = request
        self._settings = settings
        self._budget = budget
        self._held = 0
        self._complete = False

    def __enter__(self) -> Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._budget.give_back(self._held)

    async def files(self) -> list[File]:
        """Return the raw body as one nameless file, or the parts named ``file`` of a multipart body.

        Raises BodyTooLarge and BodyTimeout while reading, QueueFull when too many bytes are in flight already,
        UnsupportedType, InvalidImage for an empty body, InvalidParameter for a multipart body that is broken or has
        no file; starlette's ClientDisconnect when the client goes.
        """
        timeout_s = self._settings.body_timeout_ms / 1e3
        self._check_size(int(self._request.headers.get("content-length", 0)))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._files()
        except TimeoutError:
            raise BodyTimeout(f"the body did not arrive within {timeout_s:g} s") from None

    async def _files(self) -> list[File]:
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._multipart()
        if kind.startswith("image/") or kind in ("", "application/octet-stream"):
            data = await self._raw()
            if not data:
                raise InvalidImage("the body is empty: send an image")
            return [File("", data)]
        hint = (
            "; with curl, add -H 'Content-Type: image/jpeg' or use -F file=@photo.jpg" if "urlencoded" in kind else ""
        )
        raise UnsupportedType(f"{kind} is neither image/* nor multipart/form-data{hint}")

    async def _raw(self) -> bytes:
        chunks = []
        while not self._complete:
            chunks.append(await self._chunk())
        return b"".join(chunks)

    async def _multipart(self) -> list[File]:
        async def chunks() -> AsyncGenerator[bytes, None]:
            while not self._complete:
                yield await self._chunk()

        most = self._settings.max_files
        parser = MultiPartParser(self._request.headers, chunks(), max_files=most, max_fields=most)
        # The limits bound memory; a temporary file would only be slower.
        parser.spool_max_size = self._settings.max_body_bytes
        try:
            form = await parser.parse()
        except (MultiPartException, UnicodeError) as error:  # the latter for a charset that is none
            raise InvalidParameter(f"the multipart body is broken: {error}") from error
        parts = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        files = [File(_printable(part.filename or ""), await part.read()) for part in parts]
        await form.close()
        if not files:
            raise InvalidParameter("the multipart body has no part named 'file' with a file name")
        return files

    async def _chunk(self) -> bytes:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self._check_size(self._held + len(chunk))
        if not self._budget.try_take(len(chunk)):
            raise QueueFull(f"{self._budget.held} bytes of bodies are in flight", retry_after=1.0)
        self._held += len(chunk)
        self._complete = not message.get("more_body", False)
        return chunk

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_body_bytes:
            raise BodyTooLarge(f"the body has more than the {self._settings.max_body_bytes} bytes allowed")


def _printable(name: str) -> str:
    """Return ``name`` without halves of characters, which some charsets can say and UTF-8 can't."""
    return name.encode("utf-8", "replace").decode()
