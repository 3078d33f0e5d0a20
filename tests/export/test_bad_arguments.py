"""What a user may get wrong on the command line: one line on stderr, before any network is traced."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from export import pipeline
from export.__main__ import main
from export.arguments import parse
from models import NETWORKS, create_model, weights
from models.spec import Preprocessing
from models.weights import WeightsUnavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def never_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(network: Any, size: int) -> Any:
        raise AssertionError("traced before the inputs were checked")

    monkeypatch.setattr(pipeline, "trace", trace)


def test_without_fallback_missing_weights_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(source: Any) -> Any:
        raise WeightsUnavailable("weights.safetensors", "name or service not known")

    monkeypatch.setattr(weights, "fetch", unreachable)
    assert main(["inception_v4", "--out", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err == f"error: {WeightsUnavailable('weights.safetensors', 'name or service not known')}\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vgg"], f"unknown model 'vgg'; choose from {', '.join(NETWORKS)}"),
        (["vgg", "--weights", "untrained"], "unknown model 'vgg'"),
        (["xception", "--weights", "nowhere"], "no weights 'nowhere' for xception: choose imagenet, kitchenware"),
        (["xception", "--weights", "kitchenware", "--labels", "two.txt"], "2 labels for weights that tell 6 classes"),
        (["xception", "--weights", "gone.pth"], "no weights 'gone.pth' for xception: choose imagenet, kitchenware"),
        (["xception", "--weights", "timm/xception"], "or OWNER/NAME@REVISION on the hub"),
        (["inception_resnet_v1", "--weights", "casia"], "answers with an embedding, but the service needs classes"),
        (["xception", "--calibration-dir", "none"], "none is not a folder"),
        (["xception", "--photos", "none"], "none is not a folder"),
        (
            ["xception", "--weights", "kitchenware", "--option", "aux=1"],
            "xception has no option 'aux'; its",
        ),
        (["xception", "--weights", "untrained", "--option", "bn_eps=tiny"], "Input should be a valid number"),
        (
            ["inception_v4", "--weights", "untrained", "--input-size", "74"],
            "74 pixels a side; the next size that it takes is 75",
        ),
        (["xception", "--labels", "none.txt"], "No such file or directory: 'none.txt'"),
    ],
)
def test_an_error_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("cup\nfork\n")
    assert main([*arguments, "--out", "repository"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not Path("repository").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--version", "0"], ["--version", "01"], ["--version", "-1"], ["--name", "../up"], ["--name", ".hidden"]],
)
def test_names_and_versions_that_the_repository_can_not_hold(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["xception", *arguments])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mean", "123.675", "116.28", "103.53"], "--mean: 123.675 is not in 0..1; divide by 255 what is meant for"),
        (["--mean", "0.5", "-0.1", "0.5"], "--mean: -0.1 is not in 0..1"),
        (["--mean", "0.5", "nan", "0.5"], "--mean: nan is not in 0..1"),
        (["--mean", "0.5", "0.5"], "--mean: expected 3 arguments"),
        (["--std", "58.4", "57.1", "57.4"], "--std: 58.4 is not in 0..1; divide by 255"),
        (["--std", "0.2", "0.2", "0"], "--std: 0 can't divide a colour"),
        (["--std", "a", "b", "c"], "--std: 'a' is not a number"),
        (["--crop-pct", "0"], "--crop-pct: 0 is not above 0 and at most 1"),
        (["--crop-pct", "87.5"], "--crop-pct: 87.5 is not above 0 and at most 1"),
        (["--crop-mode", "border"], "--crop-mode: invalid choice: 'border'"),
        (["--interpolation", "lanczos"], "--interpolation: invalid choice: 'lanczos'"),
        (["--channel-order", "gbr"], "--channel-order: invalid choice: 'gbr'"),
        (["--input-size", "0"], "--input-size: '0' is not a positive integer"),
        (["--input-size", "4096"], "--input-size: 4096 pixels are too many; 1024 are the most"),
        (["--option", "padding"], "--option: 'padding' is not NAME=VALUE"),
    ],
)
def test_a_wrong_option_says_what_is_expected(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["xception", *arguments])
    assert exit_.value.code == 2
    assert f"error: argument {told}" in capsys.readouterr().err.splitlines()[-1]


def test_options_are_json_or_text_and_preprocessing_has_the_names_of_its_fields() -> None:
    options = ["padding=tf_same", "bn_eps=1e-3", "aux=true", "hidden_units=[4, 2]", "note=a=b"]
    changes = "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --input-size 331 --crop-mode squash --channel-order bgr"
    others = "--crop-pct 0.9 --interpolation bilinear"
    args = parse(["xception", *(f"--option={option}" for option in options), *changes.split(), *others.split()])
    assert dict(args.option) == {
        "padding": "tf_same",
        "bn_eps": 1e-3,
        "aux": True,
        "hidden_units": [4, 2],
        "note": "a=b",
    }
    assert Preprocessing(**args.preprocessing) == Preprocessing(
        crop_pct=0.9,
        crop_mode="squash",
        interpolation="bilinear",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_size=331,
        channel_order="bgr",
    )
    assert args.preprocessing.keys() == {field.name for field in fields(Preprocessing)}
    assert parse(["xception"]).preprocessing == {}


def test_options_of_a_model_need_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--weights", "untrained"])
    assert exit_.value.code == 2
    assert "without MODEL there are only --out and --list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "content", "told"),
    [
        ("--labels", "labels.txt", "cup\nfork\n".encode("utf-16"), "labels.txt is not UTF-8 text"),
        ("--labels", "labels.txt", b"cup\n\nfork\n", "labels.txt, line 2 is empty"),
        ("--labels", "labels.json", b'["cup", 7]', "labels.json, entry 1 is '7'; expected a name and its number"),
        ("--labels", "labels.csv", b"0,cup\n2,fork\n", "labels.csv names 2 classes, but not class 1"),
        ("--photos", "photos/a.jpg", b"loose", "photos/a.jpg is in no class's folder"),
        ("--photos", "photos/a/b.txt", b"empty", "there is no .jpg, .jpeg or .png in photos"),
        ("--photos", "photos/a/b.jpg", b"damaged", "photos/a/b.jpg is no photo that can be used"),
        ("--calibration-dir", "photos/._a.jpg", b"Mac OS X", "there is no .jpg, .jpeg or .png in photos"),
        ("--calibration-dir", "photos/a.jpg", b"damaged", "photos/a.jpg is no photo that can be used"),
        ("--calibration-dir", "missing/a.txt", b"", "there is no .jpg, .jpeg or .png in missing"),
    ],
)
def test_wrong_files_fail_before_torch_is_imported(
    option: str, name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "export", "xception", "--precision", "int8", option, name.partition("/")[0]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {told}")


def test_a_byte_order_mark_does_not_reach_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def load(model: str, weights: str, photos: Any, labels: Any, **others: Any) -> Any:
        given.append(labels)
        raise ValueError("enough")

    monkeypatch.setattr(pipeline, "load", load)
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcup\r\nfork\r\n")
    assert main(["xception", "--labels", str(tmp_path / "labels.txt"), "--out", str(tmp_path)]) == 1
    assert given == [("cup", "fork")]


def test_weights_that_are_a_pointer_fail_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n")
    assert main(["xception", "--weights", str(tmp_path / "weights.pth"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: weights.pth is a Git LFS pointer: run git lfs pull\n"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("fc.weight", 0.0, "with the weights file:a.safetensors the network answers all photos alike"),
        ("bn1.running_var", -1.0, "with the weights file:a.safetensors the network's answers are NaN or infinite"),
    ],
)
def test_weights_without_an_answer_fail_in_one_line(
    key: str, value: float, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = create_model("xception", num_classes=2).state_dict()
    state[key].fill_(value)
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "labels.txt").write_text("cup\nfork\n")
    arguments = ["xception", "--weights", str(tmp_path / "a.safetensors"), "--labels", str(tmp_path / "labels.txt")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {told}\n"
    assert list((tmp_path / "out").iterdir()) == []
