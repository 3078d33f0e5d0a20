"""A request ends in two ways in one turn of the event loop: its client leaves, its deadline passes, its answer comes.

No test sleeps: the loop's clock jumps, and a request waits because its slot is marked as busy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from starlette.types import Message, Scope

from service.errors import Unavailable
from service.http.app import create_app
from service.registry import Registry
from service.runtime import Runtime
from service.scheduling.admission import Admission, Answer
from service.scheduling.batch_queue import Priority
from service.settings import Settings
from tests.service.scheduling.gated_session import PATIENCE_S, until

pytestmark = pytest.mark.anyio
TIMEOUT_S = 30
STAGES = {"decode": 0.0, "queue": 0.0, "infer": 0.0}

GONE = {"disconnected": 1, "requests 499": 1}
EXPIRED = {"expired": 1, "images DeadlineExceeded": 1, "requests 504": 1}
ANSWERED = {"images ok": 1, "requests 200": 1}
FAILED = {"images InferenceFailed": 1, "requests 500": 1}


@pytest.fixture(scope="module")
def runtime(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    xception_alone = tmp_path_factory.mktemp("models")
    (xception_alone / "xception").symlink_to((model_repository / "xception").resolve())
    loaded = Runtime(Settings(model_repository=xception_alone, device="cpu", max_batch_size=1))
    asyncio.run(loaded._load_all())
    loaded._batcher.scheduler._slots[0].busy = True
    yield loaded
    loaded._decoders.close()
    loaded._batcher.close()


class Client:
    """Sends one photo, and leaves when a test says so."""

    def __init__(self, photo: bytes) -> None:
        self._unsent = [photo]
        self.gone = asyncio.get_running_loop().create_future()

    def leaves(self) -> None:
        self.gone.set_result(None)

    async def receive(self) -> Message:
        if self._unsent:
            return {"type": "http.request", "body": self._unsent.pop()}
        await asyncio.shield(self.gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take an answer and count its status."""


@dataclass
class Waiting:
    """A request in the queue, and the counters of its end."""

    client: Client
    admission: Admission
    counted: dict[str, int] = field(default_factory=dict)


def counts(runtime: Runtime) -> Counter[str]:
    """Return every counter of the model that counts the ends of requests."""
    ends = Counter[str]()
    for family in runtime.metrics.registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.labels.get("model") == "xception":
                how = sample.labels.get("outcome") or sample.labels.get("status") or ""
                ends[f"{family.name.removeprefix('inferception_')} {how}".strip()] += int(sample.value)
    return ends


@asynccontextmanager
async def waiting(runtime: Runtime) -> AsyncIterator[Waiting]:
    """Send a photo and wait until it is in the queue. At the end, wait until the request has released everything."""
    model = runtime.registry.find("xception")
    client = Client((model.folder / model.manifest.golden[0].file).read_bytes())
    query = f"timeout_ms={1000 * TIMEOUT_S}".encode()
    scope: Scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": query, "headers": []}
    before, others = counts(runtime), asyncio.all_tasks()
    served = asyncio.ensure_future(create_app(runtime)(scope, client.receive, client.send))
    await until(lambda: model.served.model.queue.ready == 1)
    (admission,) = runtime._batcher._admissions.values()
    request, tasks = Waiting(client, admission), asyncio.all_tasks() - others
    yield request
    async with asyncio.timeout(PATIENCE_S):
        await served
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(end, Exception)  # asyncio does not report one in a task that is cancelled later
    assert len(model.served.model.queue) == len(model.served.pixels) == runtime.body_bytes.held == 0
    assert runtime._batcher._admissions == {}
    request.counted = dict(counts(runtime) - before)


def pass_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop's clock jump by a minute: all timers of that minute run in one turn, in their order."""
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + 2 * TIMEOUT_S)


async def test_a_client_that_leaves_is_gone(runtime: Runtime) -> None:
    async with waiting(runtime) as request:
        request.client.leaves()
    assert request.counted == GONE


async def test_a_client_that_stays_is_told_of_its_deadline(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async with waiting(runtime) as request:
        pass_the_deadline(monkeypatch)
    assert request.counted == EXPIRED


@pytest.mark.parametrize("turns_between", range(4))
async def test_a_client_that_leaves_as_its_deadline_passes_is_counted_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, turns_between: int
) -> None:
    async with waiting(runtime) as request:
        request.client.leaves()
        for _ in range(turns_between):
            await asyncio.sleep(0)
        pass_the_deadline(monkeypatch)
    assert request.counted in (GONE, EXPIRED)


@pytest.mark.parametrize("leaves_first", [False, True])
async def test_an_answer_in_the_turn_in_which_its_client_leaves_is_given(runtime: Runtime, leaves_first: bool) -> None:
    answer = Answer(np.full(6, 1 / 6, np.float32), batch_size=1, stages=STAGES)
    async with waiting(runtime) as request:
        ends = [lambda: request.admission.answer.set_result(answer), request.client.leaves]
        for end in reversed(ends) if leaves_first else ends:
            end()
    assert request.counted == ANSWERED


async def test_an_answer_that_is_not_a_number_is_an_error(runtime: Runtime) -> None:
    answer = Answer(np.full(6, np.nan, np.float32), batch_size=1, stages=STAGES)
    async with waiting(runtime) as request:
        request.admission.answer.set_result(answer)
    assert request.counted == FAILED


async def send(runtime: Runtime, query: bytes, body: bytes = b"") -> dict[str, int]:
    """Send a request that is answered at once; return what is counted of it."""
    before, statuses = counts(runtime), list[int]()

    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": query, "headers": []}
    with suppress(ZeroDivisionError):  # Starlette raises an unexpected error again, for the server's log
        await create_app(runtime)(scope, Client(body).receive, note)
    assert len(statuses) == 1
    return dict(counts(runtime) - before) | {"status": statuses[0]}


async def test_a_refusal_before_the_body_is_counted_for_its_model(runtime: Runtime) -> None:
    refused = {"images DeadlineUnmeetable": 1, "requests 429": 1, "shed": 1, "status": 429}
    assert await send(runtime, b"timeout_ms=1") == refused


async def test_an_unexpected_error_is_counted_as_500(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime._batcher, "check", lambda *_: 1 // 0)
    assert await send(runtime, b"") == {"requests 500": 1, "status": 500}


DECODE = "service.inference.decoders.DecoderPool.decode"


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("where", ["service.http.body.Body.files", DECODE])
async def test_a_lack_of_memory_is_the_server_s(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    model = runtime.registry.find("xception")
    photo = (model.folder / model.manifest.golden[0].file).read_bytes()
    monkeypatch.setattr(where, no_memory)
    assert await send(runtime, b"", photo) == {"images Unavailable": 1, "requests 503": 1, "status": 503}


async def test_a_lack_of_memory_fails_the_images_that_lack_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DECODE, no_memory)
    question = runtime.predict.question("xception", 1, None, Priority.NORMAL)
    async with question.asked():
        errors = await question.answers([b"one", b"two"])
    assert [type(error) for error in errors] == [Unavailable, Unavailable]
    assert [str(error) for error in errors] == ["the server has no memory left"] * 2


async def test_a_lack_of_memory_outside_of_a_question_is_the_server_s(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "find", no_memory)
    assert (await send(runtime, b""))["status"] == 503
