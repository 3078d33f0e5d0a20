from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from torch import nn

from export import measure
from models.weights import LoadedModel


@pytest.fixture
def small(live_inception_v4: LoadedModel) -> LoadedModel:
    """A network of a few layers with something to do for every rewrite."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(8, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    spec = dataclasses.replace(live_inception_v4.spec, input_size=16)
    return dataclasses.replace(live_inception_v4, model=network, spec=spec)


def test_each_rewrite_is_measured(
    small: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "load", lambda *_: small)
    assert measure.main(["inception_v4"]) == 0
    gains = json.loads(Path("reports/fusions.json").read_text())
    rewrites = ["fold_batch_norm", "fold_normalisation", "move_pool_after_projection"]
    providers = list(dict.fromkeys(gain["provider"] for gain in gains))
    assert providers == [name for name in measure._providers() if name != "AzureExecutionProvider"]
    assert [(gain["rewrite"], gain["batch"]) for gain in gains] == [
        (name, n) for _ in providers for n in (1, 8) for name in rewrites
    ]
    assert [gain["layers"] for gain in gains[:3]] == [[6, 5], [5, 5], [5, 5]]
    before, after = gains[1]["nodes"]
    assert before - after == 3  # two divisions and a subtraction
    for gain in gains:
        low, ratio, high = gain["ratio"]
        assert 0 < low <= ratio <= high
        assert min(gain["images_per_second"]) > 0
    table = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("inception_v4 ") for line in table) == 6 * len(providers)


def test_a_rewrite_that_changes_nothing_is_left_out(small: LoadedModel) -> None:
    layers = [layer for layer in small.model.children() if not isinstance(layer, nn.AvgPool2d)]
    pooled_once = dataclasses.replace(small, model=nn.Sequential(*layers))
    assert [name for name, _, _ in measure._steps(pooled_once)] == ["unfused", "fold_batch_norm", "fold_normalisation"]


def test_what_only_int8_gains_from_is_measured_in_int8(small: LoadedModel) -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = dataclasses.replace(small, model=nn.Sequential(*layers, nn.Linear(16, 2)))
    (_, before, _), *steps = measure._int8_steps(network)
    assert [(rewrite, layers - before) for rewrite, layers, _ in steps] == [
        ("pad_channels, in int8", 0),
        ("subsample_before_projection, in int8", 1),
    ]


def test_int8_is_measured_too(small: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    monkeypatch.setattr(measure, "load", lambda *_: dataclasses.replace(small, model=network))
    gains = [gain for gain in measure.measure("inception_v4") if "int8" in gain.rewrite]
    providers = dict.fromkeys(gain.provider for gain in gains)
    assert [(gain.rewrite, gain.batch) for gain in gains] == [
        ("pad_channels, in int8", n) for _ in providers for n in (1, 8)
    ]
    assert all(gain.nodes[0] == gain.nodes[1] for gain in gains)


def test_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["vgg"]) == 1
    assert "unknown model 'vgg'" in capsys.readouterr().err
