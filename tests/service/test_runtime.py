"""The life of a model: it is loaded, published, replaced, retired, and gone from memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from service.errors import DeadlineExceeded, InvalidImage, ModelNotFound
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from service.settings import Settings
from tests.service.scheduling.gated_session import until
from tests.service.version_copies import repository

pytestmark = pytest.mark.anyio


def settings(models: Path) -> Settings:
    return Settings(model_repository=models, device="cpu", precision="int8", max_batch_size=2)


async def label(runtime: Runtime, version: int | None = None) -> tuple[int, str]:
    """Classify a golden sample. Return the version that answered, and the label."""
    question = runtime.predict.question("xception", version, None, Priority.NORMAL)
    async with question.asked():
        sample = question.classifier.manifest.golden[0]
        answer = await question.answer((question.classifier.folder / sample.file).read_bytes())
        return question.classifier.version, question.classifier.top(answer.probabilities, 1)[0]["label"]


def exposed(runtime: Runtime) -> str:
    return runtime.metrics.exposition().decode()


async def test_a_version_that_is_loaded_again_takes_its_own_place(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        old = weakref.ref(runtime.registry.find("xception"))
        await runtime.load("xception", 1)
        await until(lambda: old() is None)
        assert (await label(runtime))[0] == 1
        (models / "xception" / "1" / "manifest.json").write_text("{")
        await runtime.load("xception", 1)
        assert (await label(runtime))[0] == 1  # what was loaded goes on
        assert runtime.registry.unready is None


async def test_a_missed_deadline_and_a_bad_image_leave_nothing_of_a_retired_version(
    model_repository: Path, tmp_path: Path
) -> None:
    async with Runtime(settings(repository(tmp_path, model_repository, 1))) as runtime:
        await runtime.loading
        gc.collect()
        gc.disable()
        try:
            old = weakref.ref(runtime.registry.find("xception"))
            with pytest.raises(DeadlineExceeded):
                async with runtime.predict.question("xception", 1, 1000, Priority.NORMAL).asked():
                    raise TimeoutError
            question = runtime.predict.question("xception", 1, None, Priority.NORMAL)
            async with question.asked():
                (error,) = await question.answers([b"not an image"])
                assert isinstance(error, InvalidImage)
            del question, error
            await runtime.retire("xception", 1)
            await until(lambda: old() is None)  # the loop and a decoder let go of what they did last
        finally:
            gc.enable()


async def test_a_runtime_that_ends_while_it_loads_just_ends(model_repository: Path) -> None:
    async with Runtime(Settings(model_repository=model_repository, device="cpu")) as runtime:
        await asyncio.sleep(0)
    assert runtime.loading.cancelled()


async def test_a_version_is_replaced_while_it_answers_and_is_really_gone(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        gc.collect()
        gc.freeze()
        gc.disable()  # reference counting alone must free the sessions
        try:
            old = weakref.ref(runtime.registry.find("xception"))
            sessions = [weakref.ref(session) for session in old().placement.sessions]  # type: ignore[union-attr]
            asking = [asyncio.create_task(label(runtime)) for _ in range(4)]
            repository(tmp_path, model_repository, 2)
            await runtime.load("xception", 2)
            assert (await label(runtime))[0] == 2
            assert (await label(runtime, 1))[0] == 1  # until version 1 is retired
            await runtime.retire("xception", 1)
            assert {version for version, _ in await asyncio.gather(*asking)} == {1}
            assert (await label(runtime)) == (2, "plate")
            del asking
            await until(lambda: old() is None)
            assert [session() for session in sessions] == [None]
        finally:
            gc.enable()
            gc.unfreeze()
        with pytest.raises(ModelNotFound):
            runtime.registry.find("xception", 1)
        assert 'version="1"' not in exposed(runtime)


async def test_a_question_keeps_its_version_until_it_ends(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(repository(tmp_path, model_repository, 1))) as runtime:
        await runtime.loading
        question = runtime.predict.question("xception", 1, None, Priority.NORMAL)
        async with question.asked():
            retiring = asyncio.ensure_future(runtime.retire("xception", 1))
            with pytest.raises(ModelNotFound):
                await until(lambda: runtime.registry.find("xception", 1) is None)
            sample = question.classifier.folder / question.classifier.manifest.golden[0].file
            assert len((await question.answer(sample.read_bytes())).probabilities) == 6
            assert not retiring.done()
        await retiring
        assert 'model="xception"' not in exposed(runtime)


async def test_rows_are_enough_for_a_full_queue_while_every_slot_runs_its_largest_batch(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1)
    bounded = Settings(model_repository=models, device="cpu", max_queue_size=2, max_batch_size=3, decoders=2)
    async with Runtime(bounded) as runtime:
        await runtime.loading
        assert runtime.registry.find("xception").served.pixels.free == 2 + 3 + 2 + 1


async def test_a_version_goes_even_if_nobody_waits_for_that(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(repository(tmp_path, model_repository, 1))) as runtime:
        await runtime.loading
        old = weakref.ref(runtime.registry.find("xception"))
        question = runtime.predict.question("xception", 1, None, Priority.NORMAL)
        async with question.asked():
            retiring = asyncio.ensure_future(runtime.retire("xception", 1))
            await until(lambda: not list(runtime.registry))
            retiring.cancel()
            await asyncio.wait([retiring])
        del question
        await until(lambda: old() is None)


async def test_a_version_that_failed_can_be_forgotten(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    (models / "xception" / "1" / "manifest.json").write_text("{")
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert runtime.registry.unready is not None
        await runtime.retire("xception", 1)
        assert runtime.registry.unready is None
        with pytest.raises(ModelNotFound):
            runtime.retire("xception", 1)
