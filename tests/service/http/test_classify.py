"""Two ends of a request in one turn of the event loop: its client leaves, its deadline passes, its answer comes.

Nothing sleeps: the loop's clock jumps, and a request waits because every device counts as busy.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from starlette.types import Message, Scope

from service.http.app import create_app
from service.registry import Registry
from service.scheduling.admission import Admission, Answer
from service.settings import Settings
from tests.service.scheduling.gated_session import PATIENCE_S, until

pytestmark = pytest.mark.anyio
TIMEOUT_S = 30

GONE = {"disconnected": 1, "requests 499": 1}
EXPIRED = {"expired": 1, "images DeadlineExceeded": 1, "requests 504": 1}
ANSWERED = {"images ok": 1, "requests 200": 1}
FAILED = {"images InferenceFailed": 1, "requests 500": 1}


@pytest.fixture(scope="module")
def registry(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    xception_alone = tmp_path_factory.mktemp("models")
    (xception_alone / "xception").symlink_to((model_repository / "xception").resolve())
    loaded = Registry(Settings(model_repository=xception_alone, device="cpu", max_batch_size=1))
    loaded.load()
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def _every_device_is_busy(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._batcher, "_idle", deque())


class Client:
    """Sends one photo, and leaves when it is told to."""

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
        """Take an answer; its status is counted."""


@dataclass
class Waiting:
    """A request in the queue, and what is counted of it in the end."""

    client: Client
    admission: Admission
    counted: dict[str, int] = field(default_factory=dict)


def counts(registry: Registry) -> Counter[str]:
    """Return every counter of the model that tells how a request ended."""
    ends = Counter[str]()
    for family in registry.metrics.registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.labels.get("model") == "xception":
                how = sample.labels.get("outcome") or sample.labels.get("status") or ""
                ends[f"{family.name.removeprefix('inferception_')} {how}".strip()] += int(sample.value)
    return ends


@asynccontextmanager
async def waiting(registry: Registry) -> AsyncIterator[Waiting]:
    """Send a photo and wait until it is in the queue; at the end, until all is given back that the request took."""
    model = registry.get("xception")
    lane, client = model.lane, Client((model.folder / model.manifest.golden[0].file).read_bytes())
    app = create_app(registry._settings, registry)
    query = f"timeout_ms={1000 * TIMEOUT_S}".encode()
    scope: Scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": query, "headers": []}
    scope["state"] = {"connection_lost": client.gone}
    before, others = counts(registry), asyncio.all_tasks()
    served = asyncio.ensure_future(app(scope, client.receive, client.send))
    await until(lambda: any(ticket.decoded for ticket in lane.queue._waiting))
    (admission,) = lane.queue._waiting
    request, tasks = Waiting(client, admission), asyncio.all_tasks() - others
    yield request
    async with asyncio.timeout(PATIENCE_S):
        await served
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(end, Exception)  # asyncio keeps silent about one in a task that is cancelled later
    assert len(lane.queue) == len(lane.pixels) == app.state.body_bytes.held == 0
    request.counted = dict(counts(registry) - before)


def pass_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop's clock jump: all timers of the next minute are due in one turn, in their order."""
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + 2 * TIMEOUT_S)


@pytest.mark.parametrize("seconds_late", [-1, 1])
async def test_a_client_that_leaves_in_the_turn_of_its_deadline_is_gone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, seconds_late: int
) -> None:
    async with waiting(registry) as request:
        asyncio.get_running_loop().call_at(request.admission.deadline + seconds_late, request.client.leaves)
        pass_the_deadline(monkeypatch)
    assert request.counted == GONE


async def test_a_client_whose_leave_is_noticed_in_the_turn_of_its_deadline_is_gone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with waiting(registry) as request:
        request.client.leaves()
        pass_the_deadline(monkeypatch)
    assert request.counted == GONE


async def test_a_client_that_stays_is_told_of_its_deadline(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    async with waiting(registry) as request:
        pass_the_deadline(monkeypatch)
    assert request.counted == EXPIRED


@pytest.mark.parametrize("leaves_first", [False, True])
async def test_an_answer_in_the_turn_in_which_its_client_leaves_is_given(
    registry: Registry, leaves_first: bool
) -> None:
    answer = Answer(np.full(6, 1 / 6, np.float32), batch_size=1, decode_s=0.0, queue_s=0.0, infer_s=0.0)
    async with waiting(registry) as request:
        ends = [lambda: request.admission.answer.set_result(answer), request.client.leaves]
        for end in reversed(ends) if leaves_first else ends:
            end()
    assert request.counted == ANSWERED


async def test_an_answer_that_is_not_a_number_is_an_error(registry: Registry) -> None:
    answer = Answer(np.full(6, np.nan, np.float32), batch_size=1, decode_s=0.0, queue_s=0.0, infer_s=0.0)
    async with waiting(registry) as request:
        request.admission.answer.set_result(answer)
    assert request.counted == FAILED
