"""A request to infer says in its body how long its answer is worth waiting for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from service.http.app import create_app
from service.runtime import Runtime
from service.settings import Settings
from tests.service.scheduling.gated_session import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(model_repository: Path, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime where nobody waits without a deadline."""
    (tmp_path / "xception").symlink_to((model_repository / "xception").resolve())
    async with Runtime(Settings(model_repository=tmp_path, device="cpu", precision="int8", max_wait_ms=1)) as loaded:
        await loaded.loading
        yield loaded


async def test_a_timeout_in_the_body_allows_a_wait(runtime: Runtime) -> None:
    queue, (slot,) = runtime.registry.find("xception").served.model.queue, runtime._batcher.scheduler._slots
    slot.busy, slot.free_at = True, asyncio.get_running_loop().time() + 5  # as if a batch of 5 s ran
    transport = httpx2.ASGITransport(create_app(runtime))
    async with httpx2.AsyncClient(transport=transport, base_url="http://inferception") as client:

        async def infer(**parameters: int) -> int:
            tensor: dict[str, object] = {"name": "images", "datatype": "UINT8", "shape": [1, 299, 299, 3]}
            tensor["parameters"] = {"binary_data_size": 299 * 299 * 3}
            head = json.dumps({"parameters": parameters, "inputs": [tensor]}).encode()
            headers = {"Inference-Header-Content-Length": str(len(head))}
            body = head + bytes(299 * 299 * 3)
            return (await client.post("/v2/models/xception/infer", content=body, headers=headers)).status_code

        assert await infer() == 429
        allowed = asyncio.create_task(infer(timeout=30_000_000))
        await until(lambda: queue.ready == 1 or allowed.done())
        slot.busy = False
        runtime._batcher._start()
        assert await allowed == 200
