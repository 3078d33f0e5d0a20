"""The accuracy of the exported kitchenware network on the labelled photos, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export import evaluate
from export.__main__ import main
from export.photos import Photo, write_labelled_photos


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_labelled_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(data: Path, out: Path, model_repository: Path) -> Any:
    """Evaluate Xception on the photos with more options, and return the exit code."""
    fixed = ["evaluate", "xception", "--data", str(data), "--out", str(out), "--repository", str(model_repository)]
    return lambda *options: main([*fixed, *options])


def read_report(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_every_variant_names_all_nine_photos(
    run: Any, data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    report = read_report(out)
    assert (report["model"], report["pictures"], report["broken"]) == ("xception/1", 9, {})
    assert list(report["precisions"]) == ["fp32", "int8", "fp16"]
    for measured in report["precisions"].values():
        assert (measured["top1"], measured["top5"], measured["agreement_with_fp32"]) == (1, 1, 1)
        assert 0.15 < measured["expected_calibration_error"] < 0.25  # the network is less sure than it could be
        assert measured["images_per_second"] > 0
        assert [(row["label"], row["pictures"], row["top1"]) for row in measured["classes"]] == [
            ("cup", 4, 1),
            ("fork", 1, 1),
            ("knife", 1, 1),
            ("plate", 2, 1),
            ("spoon", 1, 1),
        ]
        assert sum(row["pictures"] for row in measured["reliability"]) == 9
    told = capsys.readouterr().out
    assert told.startswith(f"xception/1, measured on 9 pictures of {data}\n")
    assert "bf16 is not measured" in told
    for name in ("confusion-fp32.png", "confusion-int8.png", "confusion-fp16.png", "reliability.png"):
        with Image.open(out / name) as image:
            assert image.width > 400


def test_answers_are_those_of_the_golden_samples(run: Any, data: Path, out: Path, xception: Path) -> None:
    """The export took these answers from PyTorch."""
    golden = json.loads((xception / "manifest.json").read_text())["golden"]
    shutil.rmtree(data)
    for sample in golden:
        (data / sample["top_k"][0]["label"]).mkdir(parents=True)
        shutil.copy(xception / sample["file"], data / sample["top_k"][0]["label"])
    assert run("--precision", "fp32") == 0
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]
    found = {row["picture"].split("/")[0]: row["answers"]["fp32"] for row in rows}
    for sample in golden:
        answer = found[sample["top_k"][0]["label"]]
        assert answer["top"] == [best["index"] for best in sample["top_k"]]
        assert answer["probability"] == pytest.approx(sample["top_k"][0]["probability"], abs=2e-6)


@pytest.fixture
def stopped_after_two_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Control-C during the third batch of two photos."""
    original, calls = evaluate.answer_batch, 0

    def answer_batch(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "BATCH", 2)
        patch.setattr(evaluate, "answer_batch", answer_batch)
        yield


@pytest.mark.usefixtures("stopped_after_two_batches")
def test_a_stopped_evaluation_continues(run: Any, data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--precision", "int8") == 130
    assert capsys.readouterr().err == "stopped; the same command continues\n"
    journal = out / "answers.jsonl"
    before = journal.read_text()
    assert len(before.splitlines()) == 1 + 4
    assert not (out / "report.json").exists()

    assert run("--precision", "int8") == 0
    assert journal.read_text().startswith(before)
    assert len(journal.read_text().splitlines()) == 1 + 9
    assert read_report(out)["pictures"] == 9
    finished = journal.read_bytes()
    assert run("--precision", "int8") == 0  # only reports again
    assert journal.read_bytes() == finished

    (data / "cup" / "new.jpg").write_bytes(b"")
    assert run("--precision", "int8") == 1
    assert "answers of another evaluation: pictures changed" in capsys.readouterr().err
    assert run() == 1
    assert "answers of another evaluation: precisions, pictures changed" in capsys.readouterr().err
    assert journal.read_bytes() == finished


def test_broken_pictures_are_listed_and_not_counted(
    run: Any, data: Path, out: Path, photos: list[Photo], capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "cup" / "half.jpg").write_bytes(photos[0].data[:50_000])
    (data / "fork" / "text.png").write_bytes(b"no picture")
    Image.new("I;16", (400, 300)).save(data / "spoon" / "deep.png")
    assert run("--precision", "int8") == 0
    report = read_report(out)
    assert report["pictures"] == 9
    assert report["precisions"]["int8"]["top1"] == 1
    assert sorted(report["broken"]) == ["cup/half.jpg", "fork/text.png", "spoon/deep.png"]
    assert report["broken"]["spoon/deep.png"] == "it has more than 8 bits a channel"
    assert "image file is truncated" in report["broken"]["cup/half.jpg"]
    assert "3 more pictures can't be read, and are not counted" in capsys.readouterr().out


def test_without_a_picture_that_can_be_read_it_fails(
    run: Any, data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    assert run() == 1
    assert "none of 9 pictures can be read; cup/0009.jpg: " in capsys.readouterr().err


def test_a_flat_folder_with_ground_truth(run: Any, data: Path, out: Path) -> None:
    """One wrong class in the file shows as an error of the network."""
    lines = []
    for path in sorted(data.rglob("*.jpg")):
        lines.append(f"{path.name},{path.parent.name}\n".replace("fork", "spoon"))
        path.rename(data / path.name)
    (data / "truth.csv").write_text("".join(lines))
    assert run("--precision", "int8", "--ground-truth", str(data / "truth.csv")) == 0
    measured = read_report(out)["precisions"]["int8"]
    assert measured["top1"] == pytest.approx(8 / 9)
    assert measured["agreement_with_fp32"] is None
    assert measured["most_confused"] == [{"true": "spoon", "answer": "fork", "pictures": 1}]


def test_an_answer_that_is_no_number_is_never_counted() -> None:
    class Overflowing:
        def run(self, *_: Any) -> list[NDArray[np.float32]]:
            return [np.array([[0.9, 0.1], [np.nan, np.nan]], np.float32)]

    pixels = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"fp16 has no number for an answer to b\.jpg; choose other variants"):
        evaluate.answer_batch({"fp16": Overflowing()}, {"a.jpg": pixels, "b.jpg": pixels})


def test_random_weights_are_said(
    data: Path, model_repository: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders with numbers are enough for a network of 1,000 classes."""
    (data / "fork").rename(data / "999")
    for other in ("cup", "knife", "plate", "spoon"):
        shutil.rmtree(data / other)
    arguments = ["evaluate", "inception_v4/1", "--data", str(data), "--repository", str(model_repository)]
    assert main([*arguments, "--out", str(out)]) == 0
    report = read_report(out)
    assert (report["trained"], report["pictures"]) == (False, 1)
    assert "The weights are random, so the accuracy means nothing." in capsys.readouterr().out


def test_folders_that_are_no_classes(run: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "cup").rename(data / "mug")
    assert run() == 1
    assert capsys.readouterr().err.startswith("error: 1 of 5 names mean no class: mug. A name must be the label of one")


def test_a_precision_that_was_not_exported(
    data: Path, model_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "inception_v4", "--data", str(data), "--repository", str(model_repository)]
    assert main([*arguments, "--precision", "int8", "fp32"]) == 1
    assert capsys.readouterr().err == "error: inception_v4/1 was exported in fp32, not in int8\n"
