"""Ends a request's work when its client goes, under any ASGI server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from service.errors import ClientGone


@asynccontextmanager
async def ends_with_client(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block and raise ClientGone as soon as the client closes its connection.

    The request's body must have been read: whatever ``receive`` gives from then on says that the client has gone.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        patience.reschedule(0.0)

    try:
        async with asyncio.timeout(None) as patience:
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        raise ClientGone from None
