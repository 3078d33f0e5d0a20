"""``python -m bench gpu`` without a GPU: rehearsals on the CPU, and the error that names what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from bench import __main__
from bench.gpu import command
from bench.gpu.floor import costs
from bench.gpu.record import Record, rate


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", "gpu", *line.split(), "--reports", str(folder)])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    return int(exit_.value.code or 0)


@pytest.mark.usefixtures("xception_alone")
@pytest.mark.parametrize("part", command.PARTS)
def test_without_a_gpu_each_part_says_what_is_missing(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run(monkeypatch, tmp_path, part) == 1
    assert "can't measure: no GPU: " in capsys.readouterr().err


@pytest.mark.usefixtures("xception_alone")
@pytest.mark.parametrize("part", ["prove", "speed --sizes 1 --ways service torch", "kernels --sizes 1"])
def test_a_rehearsal_on_the_cpu(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tmp_path, f"{part} --device cpu") == 0
    name = part.split()[0]
    content: dict[str, Any] = json.loads((tmp_path / "gpu" / f"{name}.json").read_text())
    figures = content["figures"]
    assert content["machine"]["gpu"] == "none: a rehearsal on the CPU"
    if name == "prove":
        assert [bar["met"] for bar in content["bars"]] == [True] * 4
        assert set(figures["fp32"]["batches"]) == {"1", "2"}
        assert set(figures["fp32"]["nodes"]) == {"CPUExecutionProvider"}
    elif name == "speed":
        assert set(figures["fp32"]["batch_1"]) == {"service", "torch"}
        assert figures["fp32"]["at_most_per_s"]["gmacs"] == pytest.approx(8.36, rel=0.01)
    else:
        assert figures["torch_batch_1"]["kernels"]


def test_the_parts_and_ways_that_are_offered_exist() -> None:
    from bench.gpu.ways import WAYS

    assert list(WAYS) == command.WAYS
    folder = Path(command.__file__).parent
    assert [part for part in command.PARTS if not (folder / f"{part}.py").exists()] == []


def test_an_error_is_a_figure_and_what_is_known_is_on_disk(tmp_path: Path) -> None:
    record = Record("trial", tmp_path)
    record.put(1.5, "fp16", "load_s")

    def fail() -> None:
        raise ValueError("no\nkernel")

    assert not record.attempt(fail, "fp16", "graphs")
    assert record.attempt(lambda: None, "fp16")
    figures = json.loads((tmp_path / "trial.json").read_text())["figures"]
    assert figures == {"fp16": {"load_s": 1.5, "graphs": {"error": "ValueError: no kernel"}}}


def test_a_rate_has_its_spread() -> None:
    assert rate(8, [2.0, 1.0, 4.0]) == {"images_per_s": 4.0, "least": 2.0, "most": 8.0, "ms": 2000.0}


def test_costs_are_counted_node_by_node() -> None:
    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 1, 1], [0.0] * 12)
    bias = helper.make_tensor("b", TensorProto.FLOAT, [4], [0.0] * 4)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Add", ["relu", "conv"], ["sum"]),
    ]
    values = [value("conv", 4, 5, 5), value("relu", 4, 5, 5)]
    graph = helper.make_graph(
        nodes, "g", [value("images", 3, 5, 5)], [value("sum", 4, 5, 5)], [weight, bias], value_info=values
    )
    found = costs(graph, width=2)
    assert found.macs == 4 * 5 * 5 * 3
    assert found.biases == 2 * 100 * 2  # the bias's kernel reads and writes the output once more
    assert found.separate == 2 * ((75 + 100) + (100 + 100) + (100 + 100 + 100))
    assert found.fused == 2 * ((75 + 100) + 100)  # convolution: input and output; Add: the shortcut
