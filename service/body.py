"""Reads a request's body within its limits, raw or as multipart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.budget import Budget
from service.errors import BodyTimeout, BodyTooLarge, InvalidImage, InvalidParameter, QueueFull, UnsupportedType
from service.settings import Settings


class File(NamedTuple):
    """An uploaded file."""

    name: str
    data: bytes


class BodyReader:
    """Reads bodies; all that are read or in use at a time share one budget of bytes."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_body_bytes
        self._timeout_s = settings.body_timeout_ms / 1e3
        self._max_files = settings.max_files
        self.in_flight = Budget(settings.max_body_bytes_in_flight)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[list[File]]:
        """Yield the raw body as one nameless file, or the parts named ``file`` of a multipart body.

        Raises BodyTooLarge and BodyTimeout while reading, QueueFull when too many bytes are in flight already,
        UnsupportedType, InvalidImage for an empty body, InvalidParameter for a multipart body that is broken or has
        no file; starlette's ClientDisconnect when the client goes.
        """
        held = 0

        async def body() -> AsyncGenerator[bytes, None]:
            nonlocal held
            too_large = BodyTooLarge(f"the body has more than the {self._limit} bytes allowed")
            if int(request.headers.get("content-length", 0)) > self._limit:
                raise too_large
            async for chunk in request.stream():
                if held + len(chunk) > self._limit:
                    raise too_large
                if not self.in_flight.try_take(len(chunk)):
                    raise QueueFull(f"{self.in_flight.held} bytes of bodies are in flight", retry_after=1.0)
                held += len(chunk)
                yield chunk

        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    files = await self._files(request, body())
            except TimeoutError:
                raise BodyTimeout(f"the body did not arrive within {self._timeout_s:g} s") from None
            yield files
        finally:
            self.in_flight.give_back(held)

    async def _files(self, request: Request, body: AsyncGenerator[bytes, None]) -> list[File]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._multipart(request, body)
        if kind.startswith("image/") or kind in ("", "application/octet-stream"):
            data = b"".join([chunk async for chunk in body])
            if not data:
                raise InvalidImage("the body is empty: send an image")
            return [File("", data)]
        hint = (
            "; with curl, add -H 'Content-Type: image/jpeg' or use -F file=@photo.jpg" if "urlencoded" in kind else ""
        )
        raise UnsupportedType(f"{kind} is neither image/* nor multipart/form-data{hint}")

    async def _multipart(self, request: Request, body: AsyncGenerator[bytes, None]) -> list[File]:
        parser = MultiPartParser(request.headers, body, max_files=self._max_files, max_fields=self._max_files)
        parser.spool_max_size = self._limit  # the limits bound memory; a temporary file would only be slower
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError) as error:  # KeyError: no boundary in the content type
            raise InvalidParameter(f"the multipart body is broken: {error}") from error
        parts = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        files = [File(part.filename or "", await part.read()) for part in parts]
        await form.close()
        if not files:
            raise InvalidParameter("the multipart body has no part named 'file' with a file name")
        return files
