"""Errors that end a measurement of the service: no start, no answer, or an answer without predictions."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bench import idle, saturated
from bench.in_process import InProcess, as_served
from bench.repository import Model, read_models
from bench.server import Server, running
from service.errors import StartupError
from service.settings import Settings
from tests.bench.stub import Answer, resets, response, serving, writes, writes_and_closes

SETTINGS = Settings(device="cpu", precision="int8")


@pytest.fixture(scope="module")
def model(model_repository: Path) -> Model:
    return read_models(Settings(model_repository=model_repository))["xception"]


@pytest.fixture(scope="module")
def in_process(model: Model) -> InProcess:
    return as_served(model, SETTINGS)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={tmp_path}"]
    with pytest.raises(StartupError, match="make export"), running(Server, command, os.environ):
        pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (writes_and_closes(b""), ConnectionAbortedError, None),
        (writes_and_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"), ConnectionAbortedError, None),
        (writes(response(413)), RuntimeError, "an idle server answered 413"),
    ],
)
async def test_an_idle_server_that_does_not_answer(
    in_process: InProcess, answer: Answer, error: type[Exception], told: str | None
) -> None:
    async with serving(answer) as stub:
        with pytest.raises(error, match=told):
            await idle.ask_in_turn(stub.address, in_process, rounds=1)


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "told"), [(resets, "error='reset'"), (writes(response(413)), "status=413")])
async def test_a_saturated_server_that_does_not_answer(model: Model, answer: Answer, told: str) -> None:
    async with serving(answer) as stub:
        asked = asyncio.to_thread(
            saturated.ask_together, stub.address, model.photos, 2, model="xception", timeout_ms=1000, seconds=0.1
        )
        with pytest.raises(RuntimeError, match=f"requests got no answer, the first: .*{told}"):
            await asked
