"""What clients may change of what is served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.errors import Forbidden, ModelNotFound, Unavailable
from service.inference.traffic import Traffic
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from tests.service.scheduling.gated_session import until
from tests.service.version_copies import repository
from tests.service.versions_served import asked, damage, served, settings

pytestmark = pytest.mark.anyio


async def test_a_label_moves_once_its_version_is_served(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1, 2, 3)
    damage(models / "xception" / "2")
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        await runtime.control.label("xception", Traffic(stable=1, canary=3, canary_share=0.5))
        for wrong in (Traffic(stable=2, canary=3), Traffic(stable=2)):
            with pytest.raises(Unavailable, match=r"version 2: .*sha256"):
                await runtime.control.label("xception", wrong)
            assert served(runtime) == [1, 3]
            assert await asked(runtime, 4) == {1: 2, 3: 2}
        with pytest.raises(ModelNotFound, match="no version 9 of xception; there is 1, 2, 3"):
            await runtime.control.label("xception", Traffic(stable=9))
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


async def test_a_client_that_leaves_does_not_stop_what_it_asked_for(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path)) as runtime:
        await runtime.loading
        repository(tmp_path, model_repository, 1)
        loading = asyncio.create_task(runtime.control.load("xception"))
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
            async with asyncio.timeout(30):
                await runtime.control.label("xception", Traffic())
                assert served(runtime) == [2]
                await runtime.control.label("xception", Traffic(stable=2))


async def test_clients_are_told_that_the_mount_has_gone(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path / "models", model_repository, 1)
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        models.rename(tmp_path / "gone")
        for ask in (runtime.control.load("xception"), runtime.control.unloaded()):
            with pytest.raises(Unavailable, match="can't read the model repository"):
                await ask
        assert served(runtime) == [1]


async def test_a_client_loads_and_unloads(model_repository: Path, tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path)) as runtime:
        await runtime.loading
        assert runtime.registry.unready is None
        with pytest.raises(ModelNotFound):
            await runtime.control.load("xception")
        repository(tmp_path, model_repository, 1)
        assert await runtime.control.unloaded() == [("xception", 1)]
        await asyncio.gather(*(runtime.control.load("xception") for _ in range(3)))
        first = runtime.registry.find("xception")
        await runtime.control.load("xception")
        assert runtime.registry.find("xception") is first  # nothing had changed
        damage(repository(tmp_path, model_repository, 2) / "xception" / "2")
        with pytest.raises(Unavailable, match=r"failed to load 'xception' version 2: .*sha256"):
            await runtime.control.load("xception")
        assert runtime.registry.find("xception") is first
        await runtime.control.unload("xception")
        assert served(runtime) == []
        await runtime.control.unload("xception")
        assert await runtime.control.unloaded() == [("xception", 1), ("xception", 2)]


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
            (load, runtime.control.load("xception")),
            (load, runtime.control.label("xception", Traffic())),
            (unload, runtime.control.unload("xception")),
        ]:
            if allowed:
                await change_it
            else:
                with pytest.raises(Forbidden, match="no client may"):
                    await change_it
        assert served(runtime) == [2 if load else 1]
