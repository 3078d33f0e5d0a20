"""What a user may get wrong on the command line: one line on stderr, before any network is traced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from export import pipeline
from export.__main__ import main
from models import create_model, weights
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
        (["vgg"], "unknown model 'vgg'; choose from "),
        (["vgg", "--weights", "untrained"], "unknown model 'vgg'"),
        (["xception", "--weights", "nowhere"], "no weights 'nowhere' for xception: choose imagenet, kitchenware"),
        (["xception", "--weights", "kitchenware", "--labels", "two.txt"], "2 labels for weights that tell 6 classes"),
        (["xception", "--weights", "gone.pth"], "no weights 'gone.pth' for xception: choose imagenet, kitchenware"),
        (["xception", "--weights", "timm/xception"], "or OWNER/NAME@REVISION on the hub"),
        (["xception", "--calibration-dir", "none"], "none is not a folder"),
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


def test_options_of_a_model_need_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--weights", "untrained"])
    assert exit_.value.code == 2
    assert "without MODEL there is only --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "content", "told"),
    [
        ("--labels", "labels.txt", "cup\nfork\n".encode("utf-16"), "labels.txt is not UTF-8 text"),
        ("--labels", "labels.txt", b"cup\n\nfork\n", "labels.txt, line 2 is empty"),
        ("--calibration-dir", "photos/._a.jpg", b"Mac OS X", "there is no .jpg, .jpeg or .png in photos"),
        ("--calibration-dir", "photos/a.jpg", b"damaged", "photos/a.jpg is no photo that can be used"),
        ("--calibration-dir", "missing/a.txt", b"", "there is no .jpg, .jpeg or .png in missing"),
    ],
)
def test_wrong_files_fail_before_torch_is_imported(
    option: str, name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
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
