"""A runtime that remembers answers of a real model: hits beside a full queue, replaced versions, deadlines."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import DeadlineExceeded, InvalidImage, QueueFull, Unavailable
from service.runtime import Runtime
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Priority
from service.settings import Settings
from tests.service.scheduling.gated_session import until
from tests.service.version_copies import repository

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def remembering(models: Path, cache_bytes: int = 100_000, max_queue_size: int = 64) -> AsyncIterator[Runtime]:
    settings = Settings(
        model_repository=models,
        device="cpu",
        precision="int8",
        max_batch_size=1,
        cache_bytes=cache_bytes,
        max_queue_size=max_queue_size,
    )
    async with Runtime(settings) as runtime:
        await runtime.loading
        yield runtime


@pytest.fixture
def models(model_repository: Path, tmp_path: Path) -> Path:
    return repository(tmp_path, model_repository, 1)


def photo(runtime: Runtime, number: int) -> bytes:
    """Return the bytes of a golden sample, to which a number is appended that no decoder reads."""
    classifier = runtime.registry.find("xception")
    return (classifier.folder / classifier.manifest.golden[0].file).read_bytes() + bytes([number])


async def answer(runtime: Runtime, body: bytes | Callable[[], bytes], timeout_ms: int | None = 60_000) -> Answer:
    question = runtime.predict.question("xception", 1, timeout_ms, Priority.NORMAL)
    async with question.asked():
        return await question.answer(body() if callable(body) else body)


def looked_up(runtime: Runtime) -> tuple[int, int]:
    """Return how many images were answered by remembered answers, and how many ran."""
    counted = (runtime.metrics.cache_hits, runtime.metrics.cache_misses)
    hits, misses = (int(counter.labels("xception", 1)._value.get()) for counter in counted)
    return hits, misses


def block(runtime: Runtime) -> None:
    """Let no batch start."""
    runtime._batcher.scheduler._slots[0].busy = True


def unblock(runtime: Runtime) -> None:
    runtime._batcher.scheduler._slots[0].busy = False
    runtime._batcher._start()


def waiting(runtime: Runtime) -> int:
    return runtime.registry.find("xception").served.model.queue.ready


async def test_a_hit_is_answered_although_the_queue_is_full(models: Path) -> None:
    async with remembering(models, max_queue_size=1) as runtime:
        ran = await answer(runtime, photo(runtime, 1))
        block(runtime)
        waits = asyncio.ensure_future(answer(runtime, photo(runtime, 2)))
        await until(lambda: waiting(runtime) == 1)
        hit = await answer(runtime, photo(runtime, 1), timeout_ms=None)
        assert (hit.batch_size, list(hit.stages)) == (0, ["cache"])
        assert hit.probabilities.tobytes() == ran.probabilities.tobytes()
        with pytest.raises(QueueFull):
            await answer(runtime, photo(runtime, 3))
        unblock(runtime)
        assert (await waits).batch_size == 1
        assert looked_up(runtime) == (1, 2)
        statistics = runtime.registry.find("xception").statistics
        assert [getattr(statistics, name).count for name in ("success", "cache_hit", "cache_miss")] == [3, 1, 2]
        assert (statistics.compute_infer.count, statistics.images) == (2, 2)


async def test_a_version_that_is_stopped_gives_what_it_remembers(models: Path) -> None:
    async with remembering(models) as runtime:
        await answer(runtime, photo(runtime, 1))
        for _ in range(3):
            runtime.registry.find("xception").served.model.breaker.failed(0, "the device is gone")
        assert (await answer(runtime, photo(runtime, 1))).batch_size == 0
        with pytest.raises(Unavailable, match="the device is gone"):
            await answer(runtime, photo(runtime, 2))


async def test_a_version_in_the_place_of_another_remembers_nothing_of_it(models: Path) -> None:
    async with remembering(models) as runtime:
        image = photo(runtime, 1)
        gc.collect()
        gc.disable()  # reference counting alone must free the sessions
        try:
            await asyncio.gather(*(answer(runtime, image) for _ in range(3)))
            question = runtime.predict.question("xception", 1, None, Priority.NORMAL)
            async with question.asked():
                errors = await question.answers([b"no picture"] * 3)
            assert [type(error) for error in errors] == [InvalidImage] * 3
            del question, errors
            assert looked_up(runtime) == (2, 1)
            old = weakref.ref(runtime.registry.find("xception"))
            assert "inferception_cache_bytes{" in runtime.metrics.exposition().decode()
            await runtime.load("xception", 1)
            await until(lambda: old() is None)
            assert (await answer(runtime, image)).batch_size == 1
            assert looked_up(runtime) == (2, 2)
        finally:
            gc.enable()


async def test_who_waits_leads_once_the_leader_s_deadline_has_passed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with remembering(models) as runtime:
        block(runtime)
        image = photo(runtime, 1)
        leader = asyncio.ensure_future(answer(runtime, image, timeout_ms=10_000))
        await until(lambda: waiting(runtime) == 1)
        patient = [asyncio.ensure_future(answer(runtime, image, timeout_ms=50_000)) for _ in range(2)]
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 20)
        with pytest.raises(DeadlineExceeded):
            await leader
        await until(lambda: waiting(runtime) == 1)
        unblock(runtime)
        assert sorted([one.batch_size for one in await asyncio.gather(*patient)]) == [0, 1]


async def test_without_memory_for_it_nothing_is_looked_up(models: Path) -> None:
    async with remembering(models, cache_bytes=0) as runtime:
        answers = [await answer(runtime, photo(runtime, 1)) for _ in range(2)]
        assert [one.batch_size for one in answers] == [1, 1]
        assert [list(one.stages) for one in answers] == [["decode", "queue", "infer"]] * 2
        assert looked_up(runtime) == (0, 0)


@pytest.mark.parametrize("cache_bytes", [0, 100_000])
async def test_the_body_is_read_before_a_refusal_only_if_its_answer_may_be_remembered(
    models: Path, cache_bytes: int
) -> None:
    async with remembering(models, cache_bytes=cache_bytes, max_queue_size=1) as runtime:
        block(runtime)
        waits = asyncio.ensure_future(answer(runtime, photo(runtime, 1)))
        await until(lambda: waiting(runtime) == 1)
        bodies = [photo(runtime, 2)]
        with pytest.raises(QueueFull):
            await answer(runtime, bodies.pop)
        assert (bodies == []) == (cache_bytes > 0)
        unblock(runtime)
        await waits
