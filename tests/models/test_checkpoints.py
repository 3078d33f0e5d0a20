"""Checkpoints as training scripts write them: each test saves a real file in the way that people do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from models.state_dict import read_state_dict
from models.weights import LoadedModel, load_model


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def read(content: Any, path: Path, **how: Any) -> tuple[dict[str, Tensor], str]:
    torch.save(content, path, **how)
    return read_state_dict(path)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def changed(model: nn.Module) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in model.state_dict().items()}


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "net"])
def test_a_checkpoint_of_a_training_loop(model: nn.Module, tmp_path: Path, entry: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    schedulers = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [3]),
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
    ]
    content = {
        "epoch": 7,
        entry: model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": [scheduler.state_dict() for scheduler in schedulers],
        "scaler": {"scale": 65536.0},
        "rng": (torch.get_rng_state(), np.random.get_state()),
        "best": np.float64(0.87),
        "args": argparse.Namespace(lr=0.1, out=tmp_path, device=torch.device("cuda:0")),
    }
    found, told = read(content, tmp_path / "last.pth")
    assert told == entry
    assert_same(found, model.state_dict())


def test_timm_s_averaged_weights_come_first(model: nn.Module, tmp_path: Path) -> None:
    content = {
        "epoch": 7,
        "arch": "legacy_xception",
        "state_dict": model.state_dict(),
        "state_dict_ema": changed(model),
        "args": argparse.Namespace(model="legacy_xception"),
        "version": 2,
    }
    found, told = read(content, tmp_path / "model_best.pth.tar")
    assert told == "state_dict_ema"
    assert_same(found, changed(model))


def test_torchvision_s_averaged_weights_come_first(model: nn.Module, tmp_path: Path) -> None:
    averaged = AveragedModel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    content = {"model": model.state_dict(), "model_ema": averaged.state_dict(), "epoch": 1}
    found, told = read(content, tmp_path / "checkpoint.pth")
    assert told == "model_ema"
    assert_same(found, averaged.module.state_dict())


def test_an_empty_place_for_averaged_weights_is_passed_over(model: nn.Module, tmp_path: Path) -> None:
    content = {"ema": None, "model_ema": {"decay": 0.999}, "model": {"epoch": 3, "state_dict": model.state_dict()}}
    found, told = read(content, tmp_path / "a.pth")
    assert told == "model.state_dict"
    assert_same(found, model.state_dict())


def test_wrappers_leave_no_trace_in_the_keys(model: nn.Module, tmp_path: Path) -> None:
    class Lightning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

    compiled = cast("nn.Module", torch.compile(model, backend="eager"))
    for wrapped in (DataParallel(model), compiled, DataParallel(compiled), Lightning()):
        found, _ = read(wrapped.state_dict(), tmp_path / "a.pt")
        assert_same(found, model.state_dict())
        save_file(wrapped.state_dict(), tmp_path / "a.safetensors")
        assert_same(read_state_dict(tmp_path / "a.safetensors")[0], model.state_dict())
    found, told = read({"state_dict": Lightning().state_dict(), "hyper_parameters": {}}, tmp_path / "last.ckpt")
    assert told == "state_dict"
    assert_same(found, model.state_dict())


def test_a_prefix_of_some_keys_is_no_wrapper(model: nn.Module, tmp_path: Path) -> None:
    state = {f"model.{key}": value for key, value in model.state_dict().items()} | {"loss.weight": torch.ones(4)}
    found, _ = read(state, tmp_path / "a.pth")
    assert_same(found, state)


def test_the_old_format_holds_plain_checkpoints(model: nn.Module, tmp_path: Path) -> None:
    old = {"_use_new_zipfile_serialization": False}
    found, told = read({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "old.pth", **old)
    assert told == "state_dict"
    assert_same(found, model.state_dict())
    with pytest.raises(ValueError, match=r"old\.pth is not a file of tensors only.*it holds argparse\.Namespace"):
        read({"state_dict": model.state_dict(), "args": argparse.Namespace()}, tmp_path / "old.pth", **old)


class Payload:
    """Runs code when pickle loads it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


def test_code_beside_the_weights_does_not_run(model: nn.Module, tmp_path: Path) -> None:
    found, _ = read({"state_dict": model.state_dict(), "callbacks": [Payload()]}, tmp_path / "a.pth")
    assert_same(found, model.state_dict())


class Settings(dict[str, int]):
    """Of a class that only the training script has."""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (nn.Linear(2, 2), "holds no state dict but a torch.nn.modules.linear.Linear; save model.state_dict() alone"),
        ({"epoch": 1, "model": nn.Linear(2, 2)}, "a dict of epoch (int), model (torch.nn.modules.linear.Linear);"),
        ({"netG": {"a": torch.zeros(1)}, "epoch": 1}, "a dict of netG (dict), epoch (int); save"),
        ({"a.weight": np.zeros(2)}, "a dict of a.weight (numpy._core.multiarray._reconstruct);"),
        ({str(i): i for i in range(9)}, "0 (int), 1 (int), 2 (int), 3 (int), 4 (int), 5 (int), ...;"),
        ({"state_dict": {}}, "a dict of state_dict (dict);"),
        ({}, "holds no state dict but an empty dict;"),
        ([torch.zeros(2)], "holds no state dict but a list;"),
        ({1: torch.zeros(2)}, "a dict of 1 (Tensor);"),
        (torch.zeros(2), "holds no state dict but a Tensor;"),
        ({"hp": Settings(a=1), "state_dict": {"a": torch.zeros(1)}}, "it holds test_checkpoints.Settings; save"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_what_was_found_instead_of_weights(content: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a\.pth ") as error:
        read(content, tmp_path / "a.pth")
    assert told in str(error.value).replace("tests.models.test_checkpoints", "test_checkpoints")


def test_the_source_says_which_entry_was_taken(live_xception: LoadedModel, tmp_path: Path) -> None:
    half = {f"module.{key}": value.bfloat16() for key, value in live_xception.model.state_dict().items()}
    state = {key: value for key, value in half.items() if not key.endswith("num_batches_tracked")}
    torch.save({"epoch": 1, "model_ema": state}, tmp_path / "pytorch_model.bin")
    loaded = load_model("xception", str(tmp_path / "pytorch_model.bin"))
    assert loaded.source == "file:pytorch_model.bin#model_ema"
    assert torch.equal(loaded.model.state_dict()["fc.weight"], state["module.fc.weight"].float())
