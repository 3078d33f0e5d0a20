"""What is served follows the folders of the model repository, by looks that the tests time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import ModelNotFound, StartupError
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from tests.service.scheduling.gated_session import until
from tests.service.version_copies import change, entries, repository
from tests.service.versions_served import asked, damage, served, settings

pytestmark = pytest.mark.anyio


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
