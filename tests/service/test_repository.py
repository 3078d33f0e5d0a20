"""What is served follows the folders of the model repository, by looks that the tests time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import Forbidden, ModelNotFound, StartupError, Unavailable
from service.inference.traffic import Traffic
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from service.settings import Settings
from tests.service.scheduling.gated_session import until
from tests.service.version_copies import change, entries, repository

pytestmark = pytest.mark.anyio


def settings(models: Path, **others: Any) -> Settings:
    chosen: dict[str, Any] = {"repository": "explicit", "admin_api": True, "precision": "int8"} | others
    return Settings(model_repository=models, device="cpu", max_batch_size=2, **chosen)


def served(runtime: Runtime) -> list[int]:
    return sorted(one.version for one in runtime.registry)


def damage(version: Path) -> None:
    (version / "labels.txt").write_text("cup\n")


async def test_a_new_version_takes_the_place_of_the_old_one_once_its_folder_has_settled(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        repository(models, model_repository, 2)
        await runtime.repository.look()
        assert served(runtime) == [1]  # it may be half copied
        (models / "xception" / "2" / "one more file").touch()
        await runtime.repository.look()
        assert served(runtime) == [1]
        await runtime.repository.look()
        assert served(runtime) == [2]
        assert 'version="1"' not in runtime.metrics.exposition().decode()


async def test_a_bad_new_version_never_takes_the_place_of_an_old_one(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        good = runtime.registry.find("xception")
        damage(repository(models, model_repository, 2) / "xception" / "2")
        damage(models / "xception" / "1")
        change(models / "xception" / "1", trained=False)
        for _ in range(3):
            await runtime.repository.look()
            assert runtime.registry.find("xception") is good
        assert {*runtime.registry.failures} == {("xception", 1), ("xception", 2)}
        assert "labels.txt has sha256" in runtime.registry.failures["xception", 2]
        assert runtime.registry.unready is None
        shutil.rmtree(models / "xception" / "2")
        repository(models, model_repository, 2)  # the cure
        for _ in range(2):
            await runtime.repository.look()
        assert served(runtime) == [2]
        assert ("xception", 2) not in runtime.registry.failures


async def test_a_version_whose_folder_has_gone_is_retired_and_an_older_one_comes_back(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1, 2)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert served(runtime) == [2]
        shutil.move(models / "xception" / "2", tmp_path / "elsewhere")
        await runtime.repository.look()
        assert served(runtime) == [1, 2]  # whoever replaces a folder may need a moment
        await runtime.repository.look()
        assert served(runtime) == [1]
        repository(models, model_repository, 3)
        for _ in range(2):
            await runtime.repository.look()
        assert served(runtime) == [3]


async def test_a_model_comes_and_goes(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        shutil.copytree(models / "xception", models / "second", symlinks=True)
        change(models / "second" / "1", name="second")
        for _ in range(2):
            await runtime.repository.look()
        assert runtime.registry.find("second").version == 1
        shutil.rmtree(models / "second")
        for _ in range(2):
            await runtime.repository.look()
        assert [one.name for one in runtime.registry] == ["xception"]
        assert runtime.registry.unready is None


@pytest.mark.parametrize("lose", [lambda models: (models / "xception").rename(models.parent / "gone"), shutil.rmtree])
async def test_a_mount_that_has_gone_changes_nothing(
    model_repository: Path, tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    models = repository(tmp_path / "models", model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        lose(models)
        for _ in range(3):
            with pytest.raises(StartupError, match="model repository"):
                await runtime.repository.look()
        assert served(runtime) == [1]
        assert runtime.registry.unready is None


async def test_several_versions_can_be_served_side_by_side(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    damage(models / "xception" / "3")
    async with Runtime(settings(models, keep_versions=2)) as runtime:
        await runtime.loading
        assert served(runtime) == [1, 2]
        repository(models, model_repository, 4)
        for _ in range(2):
            await runtime.repository.look()
        assert served(runtime) == [2, 4]
        assert runtime.registry.find("xception").version == 4
        assert runtime.registry.find("xception", 2).version == 2
        with pytest.raises(ModelNotFound, match="there is 2, 4"):
            runtime.registry.find("xception", 1)


async def asked(runtime: Runtime, requests: int) -> Counter[int]:
    """Count the versions that requests get which name none."""
    questions = (runtime.predict.question("xception", None, None, Priority.NORMAL) for _ in range(requests))
    return Counter(question.classifier.version for question in questions)


async def test_labels_share_the_traffic(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    labels = models / "xception" / "traffic.json"
    labels.write_text(json.dumps({"stable": 1, "canary": 3, "canary_share": 0.25}))
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert served(runtime) == [1, 3]
        assert await asked(runtime, 400) == {1: 300, 3: 100}
        assert runtime.registry.find("xception").version == 1
        assert runtime.registry.find("xception", "canary").version == 3
        assert runtime.registry.find("xception", "stable").version == 1
        canary = runtime.registry.find("xception", "canary")
        for _ in range(3):
            canary.served.model.breaker.failed(0, "broken")
        assert canary.unready is not None
        assert await asked(runtime, 40) == {1: 40}
        labels.unlink()
        await runtime.repository.look()
        assert served(runtime) == [1, 3]  # whoever replaces a file may need a moment
        await runtime.repository.look()
        assert served(runtime) == [3]
        with pytest.raises(ModelNotFound, match="no version of xception is labelled canary"):
            runtime.registry.find("xception", "canary")


async def test_a_label_moves_once_its_version_is_served(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    damage(models / "xception" / "2")
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        await runtime.repository.label("xception", Traffic(stable=1, canary=3, canary_share=0.5))
        for wrong in (Traffic(stable=2, canary=3), Traffic(stable=2)):
            with pytest.raises(Unavailable, match=r"version 2: .*sha256"):
                await runtime.repository.label("xception", wrong)
            assert served(runtime) == [1, 3]
            assert await asked(runtime, 4) == {1: 2, 3: 2}
        with pytest.raises(ModelNotFound, match="no version 9 of xception; there is 1, 2, 3"):
            await runtime.repository.label("xception", Traffic(stable=9))
        (models / "xception" / "traffic.json").write_text('{"stable": 9, "canary": 3, "canary_share": 0.5}')
        for _ in range(2):
            await runtime.repository.look()
        assert await asked(runtime, 4) == {1: 2, 3: 2}
        assert "no such version" in runtime.registry.failures["xception", 9]
        (models / "xception" / "traffic.json").write_text("{")
        await runtime.repository.look()
        assert await asked(runtime, 4) == {1: 2, 3: 2}
        assert "traffic.json is wrong" in runtime.registry.failures["xception", 0]
        assert runtime.registry.unready is None
        (models / "xception" / "traffic.json").write_text("{}")
        for _ in range(2):
            await runtime.repository.look()
        assert served(runtime) == [3]
        assert {*runtime.registry.failures} == {("xception", 2)}


async def test_a_start_with_a_canary_that_fails_keeps_the_stable_version(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    damage(models / "xception" / "2")
    (models / "xception" / "traffic.json").write_text('{"stable": 1, "canary": 2, "canary_share": 0.5}')
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert await asked(runtime, 4) == {1: 4}
        assert served(runtime) == [1, 3]
        assert runtime.registry.unready is None


async def test_labels_outlast_a_folder_that_is_away_for_a_moment(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    (models / "xception" / "traffic.json").write_text('{"stable": 1, "canary": 2, "canary_share": 0.5}')
    shutil.copytree(models / "xception", models / "other", symlinks=True)  # so that the repository is not empty
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        (models / "xception").rename(models / ".away")
        await runtime.repository.look()
        assert await asked(runtime, 4) == {1: 2, 2: 2}
        (models / ".away").rename(models / "xception")
        await runtime.repository.look()
        assert await asked(runtime, 4) == {1: 2, 2: 2}


async def test_a_client_that_leaves_does_not_stop_what_it_asked_for(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path)) as runtime:
        await runtime.loading
        repository(tmp_path, model_repository, 1)
        loading = asyncio.create_task(runtime.repository.load("xception"))
        await until(lambda: runtime.repository._changing.locked())
        loading.cancel()
        await until(lambda: served(runtime) == [1])


async def test_a_change_does_not_wait_for_the_questions_of_a_version_that_goes(
    model_repository: Path, tmp_path: Path
) -> None:
    models = repository(tmp_path, model_repository, 1, 2)
    (models / "xception" / "traffic.json").write_text('{"stable": 1}')
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        slow = runtime.predict.question("xception", 1, None, Priority.NORMAL)
        async with slow.asked():
            await runtime.repository.label("xception", Traffic())
            assert served(runtime) == [2]
            await runtime.repository.label("xception", Traffic(stable=2))


async def test_clients_are_told_that_the_mount_has_gone(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path / "models", model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        models.rename(tmp_path / "gone")
        for ask in (runtime.repository.load("xception"), runtime.repository.unloaded()):
            with pytest.raises(Unavailable, match="can't read the model repository"):
                await ask
        assert served(runtime) == [1]


async def test_a_client_loads_and_unloads(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path)) as runtime:
        await runtime.loading
        assert runtime.registry.unready is None
        with pytest.raises(ModelNotFound):
            await runtime.repository.load("xception")
        repository(tmp_path, model_repository, 1)
        assert await runtime.repository.unloaded() == [("xception", 1)]
        await asyncio.gather(*(runtime.repository.load("xception") for _ in range(3)))
        first = runtime.registry.find("xception")
        await runtime.repository.load("xception")
        assert runtime.registry.find("xception") is first  # nothing had changed
        damage(repository(tmp_path, model_repository, 2) / "xception" / "2")
        with pytest.raises(Unavailable, match=r"failed to load 'xception' version 2: .*sha256"):
            await runtime.repository.load("xception")
        assert runtime.registry.find("xception") is first
        await runtime.repository.unload("xception")
        assert served(runtime) == []
        await runtime.repository.unload("xception")
        assert await runtime.repository.unloaded() == [("xception", 1), ("xception", 2)]


@pytest.mark.parametrize(
    ("chosen", "load", "unload"),
    [
        ({"repository": "poll", "admin_api": True}, True, False),
        ({"repository": "fixed", "admin_api": True}, False, False),
        ({"repository": "poll", "admin_api": False}, False, False),
    ],
)
async def test_clients_may_do_what_the_settings_say(
    model_repository: Path, tmp_path: Path, chosen: dict[str, Any], load: bool, unload: bool
) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models, **chosen)) as runtime:
        await runtime.loading
        repository(models, model_repository, 2)
        for allowed, change_it in [
            (load, runtime.repository.load("xception")),
            (load, runtime.repository.label("xception", Traffic())),
            (unload, runtime.repository.unload("xception")),
        ]:
            if allowed:
                await change_it
            else:
                with pytest.raises(Forbidden, match="no client may"):
                    await change_it
        assert served(runtime) == [2 if load else 1]


async def test_the_process_looks_by_itself(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models, repository="poll", poll_interval_ms=1)) as runtime:
        await runtime.loading
        repository(models, model_repository, 2)
        await asyncio.wait_for(until(lambda: served(runtime) == [2]), 30)


async def test_a_weights_file_that_is_cut_short_while_it_is_served_hurts_nobody(
    model_repository: Path, tmp_path: Path
) -> None:
    """A mapped file that is cut short would end the process by SIGBUS at the next batch."""
    version = tmp_path / "xception" / "1"
    shutil.copytree(model_repository / "xception" / "1", version, ignore=shutil.ignore_patterns("fp16*", "int8*"))
    change(version, variants=[one for one in entries(version)["variants"] if one["precision"] == "fp32"])
    async with Runtime(settings(tmp_path, precision="fp32")) as runtime:
        await runtime.loading
        os.truncate(version / "fp32.onnx.data", 0)
        question = runtime.predict.question("xception", None, None, Priority.NORMAL)
        async with question.asked():
            answer = await question.answer((version / "golden" / "0.jpg").read_bytes())
        assert question.classifier.top(answer.probabilities, 1)[0]["label"] == "plate"
