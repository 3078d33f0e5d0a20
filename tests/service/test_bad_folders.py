"""What is wrong in one folder fails one version, with its reason. The rest is served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, ModelNotFound, StartupError, Unavailable
from service.inference import placement
from service.inference.manifest import Manifest
from service.inference.session import OnnxSession
from service.runtime import Runtime
from service.settings import Settings
from tests.service.version_copies import change, entries, replace, repository

pytestmark = pytest.mark.anyio


def settings(models: Path, **others: Any) -> Settings:
    return Settings(model_repository=models, device="cpu", max_batch_size=2, **others)


def pipe(name: str) -> Callable[[Path], None]:
    """Nothing writes to the pipe, so opening it would never return."""

    def damage(version: Path) -> None:
        (version / name).unlink()
        os.mkfifo(version / name)

    return damage


def folder(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).unlink()
        (version / name).mkdir()

    return damage


def no_picture(version: Path) -> None:
    golden = entries(version)["golden"]
    golden[1]["sha256"] = replace(version, golden[1]["file"], b"not a picture")
    change(version, golden=golden)


def no_graph(version: Path) -> None:
    (variant,) = entries(version)["variants"]
    change(version, variants=[variant | {"sha256": replace(version, "int8.onnx", b"not a graph")}])


def no_utf_8(version: Path) -> None:
    sha256 = replace(version, "labels.txt", "cup\nfork\nglass\nknife\nplate\nLöffel\n".encode("latin-1"))
    change(version, labels=entries(version)["labels"] | {"sha256": sha256})


def expect_the_second_best(version: Path) -> None:
    golden = entries(version)["golden"]
    best, second = golden[0]["top_k"][:2]
    best["index"], second["index"] = second["index"], best["index"]
    change(version, golden=golden)


def expect_no_class(version: Path) -> None:
    golden = entries(version)["golden"]
    golden[0]["top_k"][0]["index"] = 6
    change(version, golden=golden)


def grow(version: Path) -> None:
    os.truncate(version / "manifest.json", 1 << 40)  # a hole: it takes no space


def leave(version: Path) -> None:
    change(version, labels=entries(version)["labels"] | {"file": "../1/labels.txt"})


def become_a_file(version: Path) -> None:
    version.rename(version.with_name(".gone"))
    version.touch()


def lead_nowhere(version: Path) -> None:
    version.rename(version.with_name(".moved"))
    version.symlink_to("nowhere")


def crop(crop_pct: float) -> Callable[[Path], None]:
    return lambda version: change(version, preprocessing=entries(version)["preprocessing"] | {"crop_pct": crop_pct})


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda version: (version / "manifest.json").write_text("{"), "not a valid manifest"),
    (lambda version: (version / "labels.txt").write_text("cup\n"), "sha256"),
    (lambda version: (version / "golden/0.jpg").unlink(), "golden/0.jpg: No such file"),
    (lambda version: (version / "int8.onnx.data").unlink(), "data: No such file"),
    *((pipe(name), f"{name} is not a regular file") for name in ("manifest.json", "labels.txt", "golden/2.jpg")),
    *((pipe(name), f"{name} is not a regular file") for name in ("int8.onnx", "int8.onnx.data")),
    *((folder(name), f"{name} is not a regular file") for name in ("manifest.json", "labels.txt", "int8.onnx")),
    *((crop(crop_pct), "crop_pct") for crop_pct in (0, 1.5, float("nan"))),
    (no_picture, "can't decode .*golden/1.jpg"),
    (no_graph, "can't load the model"),
    (no_utf_8, "is not UTF-8"),
    (expect_the_second_best, "instead of"),
    (expect_no_class, "an answer is class 6, but there are 6 labels"),
    (grow, "has more than"),
    (leave, "inside the version folder"),
    (become_a_file, "Not a directory"),
    (lead_nowhere, "No such file"),
]


async def test_what_is_wrong_in_a_folder_fails_that_version_alone(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, *range(1, len(DAMAGES) + 2))
    for version, (damage, _) in enumerate(DAMAGES, 2):
        damage(models / "xception" / str(version))
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert runtime.registry.unready is None  # the version before them works
        assert runtime.registry.find("xception").version == 1
        for version, (_, reason) in enumerate(DAMAGES, 2):
            with pytest.raises(Unavailable, match=reason):
                runtime.registry.find("xception", version)
        with pytest.raises(ModelNotFound, match=r"there is 1$"):
            runtime.registry.find("xception", len(DAMAGES) + 2)


async def test_a_model_whose_folder_can_not_be_read(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    (models / "inception_v4").symlink_to("nowhere")
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert runtime.registry.find("xception").version == 1
        assert "inception_v4: No such file" in str(runtime.registry.unready)
        for version in (None, 1):
            with pytest.raises(Unavailable, match="inception_v4: No such file"):
                runtime.registry.find("inception_v4", version)


async def test_a_version_without_a_manifest_is_not_there_yet(
    model_repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = repository(tmp_path, model_repository, 1, 2)
    (models / "xception" / "2" / "manifest.json").unlink()
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert runtime.registry.unready is None
        assert runtime.registry.find("xception").version == 1
        assert "xception/2': it has no manifest.json yet" in caplog.text
        with pytest.raises(ModelNotFound, match=r"there is 1$"):
            runtime.registry.find("xception", 2)


async def test_a_model_whose_only_version_fails_makes_the_server_unready(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda session, images: run(session, images) * np.float32("nan"))
    async with Runtime(settings(repository(tmp_path, model_repository, 1))) as runtime:
        await runtime.loading
        assert list(runtime.registry) == []
        assert "xception/1: " in str(runtime.registry.unready)
        assert "(nan)" in str(runtime.registry.unready)
        assert "inferception_ready 0.0" in runtime.metrics.exposition().decode()
        with pytest.raises(Unavailable, match="re-export"):
            runtime.registry.find("xception")


async def test_a_graph_that_loads_and_does_not_run_fails_its_version_alone(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(session: OnnxSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("Got invalid dimensions")

    monkeypatch.setattr(OnnxSession, "run", run)
    async with Runtime(settings(repository(tmp_path, model_repository, 1))) as runtime:
        await runtime.loading
        assert "Got invalid dimensions" in runtime.registry.failures["xception", 1]


async def test_a_graph_that_the_device_can_not_run_fails_its_version_alone(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = placement.load

    def refuse(folder: Path, manifest: Manifest, *others: Any) -> placement.Placement:
        if manifest.version in refused:
            raise DeviceUnavailable("the device has no such kernel")
        return load(folder, manifest, *others)

    monkeypatch.setattr(placement, "load", refuse)
    models = repository(tmp_path, model_repository, 1, 2)
    refused = {2}
    async with Runtime(settings(models)) as runtime:
        await runtime.loading
        assert runtime.registry.find("xception").version == 1
        assert runtime.registry.failures == {("xception", 2): "the device has no such kernel"}
    refused = {1, 2}
    async with Runtime(settings(models)) as runtime:
        with pytest.raises(StartupError, match="no such kernel"):
            await runtime.loading


async def test_a_repository_without_models_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    async with Runtime(settings(tmp_path)) as runtime:
        with pytest.raises(StartupError, match=r"no models in .*make export"):
            await runtime.loading


async def test_a_default_model_that_is_not_there_is_an_error(model_repository: Path, tmp_path: Path) -> None:
    models = repository(tmp_path, model_repository, 1)
    async with Runtime(settings(models, default_model="resnet")) as runtime:
        with pytest.raises(StartupError, match="there is only xception"):
            await runtime.loading


async def test_a_failed_start_is_told_by_readiness(tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path)) as runtime:
        await asyncio.wait([runtime.loading])
        assert "make export" in str(runtime.registry.unready)
        with pytest.raises(Unavailable, match="make export"):
            runtime.registry.find("xception")
