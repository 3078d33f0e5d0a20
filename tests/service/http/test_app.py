"""The application runs under other ASGI servers, and FastAPI's dependencies work on it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.testclient import TestClient

from service.http import classify
from service.http.app import create_app
from service.runtime import Runtime
from service.settings import Settings


@pytest.fixture
def runtime(model_repository: Path, tmp_path: Path) -> Runtime:
    (tmp_path / "xception").symlink_to((model_repository / "xception").resolve())
    return Runtime(Settings(model_repository=tmp_path, device="cpu", precision="int8", max_batch_size=1))


@pytest.fixture
def photo(kitchenware_photos: list[tuple[Path, str | None]]) -> tuple[bytes, str]:
    path, label = next((path, label) for path, label in kitchenware_photos if label is not None)
    return path.read_bytes(), str(label)


def until_ready(ready: Callable[[], int]) -> None:
    while ready() != 200:
        pass


def label_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["predictions"][0]["label"])


def test_starlette_s_test_client_gets_answers_and_problems(runtime: Runtime, photo: tuple[bytes, str]) -> None:
    with TestClient(create_app(runtime)) as client:
        until_ready(lambda: client.get("/health/ready").status_code)
        answer = client.post("/classify", content=photo[0], headers={"Content-Type": "image/jpeg"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["label"] == photo[1]
        assert client.post("/classify", content=b"junk").status_code == 400
        assert client.post("/classify?top_k=7", content=photo[0]).status_code == 422


@contextmanager
def under_hypercorn(app: FastAPI) -> Iterator[str]:
    """Serve ``app`` with Hypercorn on a free port, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    port, config = listener.getsockname()[1], Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes the descriptor
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    serving = serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type] # hypercorn's own types of ASGI
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def until_exposed(client: httpx2.Client, line: str) -> None:
    patience = time.monotonic() + 30
    while line not in (exposed := client.get("/metrics").text):
        assert time.monotonic() < patience, exposed


def test_hypercorn_serves_it_and_a_client_that_leaves_is_noticed(runtime: Runtime, photo: tuple[bytes, str]) -> None:
    app = create_app(runtime)

    def ready() -> int:
        try:
            return client.get("/health/ready").status_code
        except httpx2.ConnectError:
            return 0

    with under_hypercorn(app) as url, httpx2.Client(base_url=url, timeout=30) as client:
        until_ready(ready)
        assert label_of(client.post("/classify", content=photo[0], headers={"Content-Type": "image/jpeg"})) == photo[1]
        runtime._batcher.scheduler._slots[0].busy = True  # so that the next image waits
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as leaving:
            head = f"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Length: {len(photo[0])}\r\n\r\n"
            leaving.sendall(head.encode() + photo[0])
            until_exposed(client, 'inferception_queue_depth{model="xception"} 1.0')
        until_exposed(client, 'inferception_disconnected_total{model="xception",version="1"} 1.0')
        assert 'inferception_queue_depth{model="xception"} 0.0' in client.get("/metrics").text


def deny() -> None:
    raise HTTPException(401, "who are you?")


def test_a_dependency_on_the_app_is_called_before_every_route(runtime: Runtime) -> None:
    with TestClient(create_app(runtime, dependencies=[Depends(deny)])) as client:
        for answer in (client.post("/classify", content=b"x"), client.get("/models"), client.get("/metrics")):
            assert answer.status_code == 401
            assert answer.json()["detail"] == "who are you?"


def test_a_dependency_on_the_route_is_called(runtime: Runtime) -> None:
    app = create_app(runtime)
    app.include_router(classify.router, prefix="/guarded", dependencies=[Depends(deny)])
    with TestClient(app) as client:
        assert client.post("/guarded/classify", content=b"x").status_code == 401
        assert client.post("/classify", content=b"x").status_code == 503  # the models are being loaded
