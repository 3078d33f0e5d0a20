"""The model of a running server, asked through ``POST /classify``."""

import asyncio
import functools
import json
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from service.classify_photos.answers import Answer, Model
from service.errors import InvalidImage, InvalidParameter, Overloaded, ServiceError, Unavailable

log = logging.getLogger("inferception")

_AT_A_TIME = 32  # two or three batches of a server with the default settings, and what is on its way
_CONNECT_S = 10.0
_SPARE_S = 10.0  # for an answer that left the server at the deadline
_FAULTS = (400, 413, 415, 500, 504)  # of one photo
# A server may close an idle connection as the next request is sent. Then the request is sent again.
_AGAIN = Retry(1, connect=0, status=0, redirect=False, allowed_methods=None, respect_retry_after_header=False)


@asynccontextmanager
async def over_http(
    url: str, key: str | None, name: str | None, top_k: int | None, timeout_ms: int
) -> AsyncGenerator[Model, None]:
    """Ask the server at ``url``, with an API key if there is one. ``name`` and ``top_k`` are as in a request."""
    asked = {"model": name, "top_k": top_k, "timeout_ms": timeout_ms}
    target = f"{url.rstrip('/')}/classify?{urlencode({k: v for k, v in asked.items() if v is not None})}"
    headers = {"Content-Type": "image/*"} | ({"Authorization": f"Bearer {key}"} if key else {})
    timeout = Timeout(connect=_CONNECT_S, read=timeout_ms / 1e3 + _SPARE_S)
    pool = PoolManager(maxsize=_AT_A_TIME, headers=headers, retries=_AGAIN, timeout=timeout)
    threads = ThreadPoolExecutor(_AT_A_TIME, "ask")

    def post(photo: bytes) -> Answer:
        try:
            return _answer(pool.request("POST", target, body=photo))
        except HTTPError as error:
            raise Unavailable(f"can't ask {url}: {getattr(error, 'reason', error)}") from None

    async def ask(photo: bytes) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(threads, post, photo)

    try:
        yield Model(ask, _AT_A_TIME)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # who interrupts the command does not wait for the server


def _answer(response: BaseHTTPResponse) -> Answer:
    """Return the answer in a response. Raises Overloaded if it says when to come back, or what the server said."""
    try:
        said = json.loads(response.data)
        if response.status == 200:
            answer = Answer(said["model"], said["version"], said["trained"], said["predictions"])
            _note(answer.model, answer.version, answer.trained)
            return answer
        detail = str(said["detail"])
    except (ValueError, LookupError, TypeError):
        detail = f"the server answered {response.status} {response.reason}, which is not an answer of this service"
    raise _error(response, detail)


@functools.cache  # once for each version
def _note(model: str, version: int, trained: bool) -> None:
    if not trained:
        log.warning("%s version %d has RANDOM weights: its answers mean nothing", model, version)


def _error(response: BaseHTTPResponse, detail: str) -> ServiceError:
    wait = response.headers.get("Retry-After", "")
    if wait.isdecimal():
        return Overloaded(detail, float(wait))
    if response.status in _FAULTS:
        return InvalidImage(detail)
    return InvalidParameter(detail) if 400 <= response.status < 500 else Unavailable(detail)
