"""The command line of ``python -m bench``, in short runs on a real model and real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__, limits, plots, under_load
from bench.plots import BarChart
from bench.report import Report
from bench.repository import read_models
from bench.triton_server import triton
from service.settings import Settings


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the command line in a folder without photos and returns the exit code."""
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["bench", *command.split()])
        with pytest.raises(SystemExit) as exit_:
            __main__.main()
        return int(exit_.value.code or 0)

    return run


def figures(report: str) -> dict[str, Any]:
    content = json.loads(Path("reports", report).read_text())
    found: dict[str, Any] = content["figures"]
    return found


@pytest.mark.usefixtures("xception_alone")
def test_limits(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("limits --quick") == 0
    found = figures("limits/xception.json")
    assert found["served"] in ("fp32 on cpu", "int8 on cpu")
    rates = found["session_images_per_s_by_batch"]
    assert {way: set(by_size) for way, by_size in rates.items()} == {
        "fp32 on cpu": {"1", "2"},
        "int8 on cpu": {"1", "2"},
    }
    assert min(rate for by_size in rates.values() for rate in by_size.values()) > 0
    ratio = rates["int8 on cpu"]["2"] / rates["fp32 on cpu"]["2"]
    assert found["session_over_float"]["int8 on cpu"] == pytest.approx(ratio)
    assert set(found["decode_and_infer_images_per_s"]) == {"fp32 on cpu", "int8 on cpu"}
    decoding = found["decode_ms_of_a_core"]
    assert found["fast_over_exact"] == pytest.approx(decoding["fast"] / decoding["exact"])
    assert Path("reports/limits/xception.png").read_bytes().startswith(b"\x89PNG")
    assert f"served {found['served']}" in capsys.readouterr().out


@pytest.mark.usefixtures("xception_alone")
def test_classify(bench: Any) -> None:
    assert bench("classify --quick") == 0
    found = figures("classify/classify.json")
    assert found["photos"] == 12
    assert found["ratio"] == [found["command_images_per_s"][0] / found["offline_images_per_s"][0]]


@pytest.mark.usefixtures("xception_alone")
def test_family(bench: Any) -> None:
    assert bench("family --quick") == 0
    found = figures("family/family.json")
    assert set(found["session_images_per_s_by_batch"]) == {"xception, fp32 on cpu", "xception, int8 on cpu"}
    ratios = found["over_the_default_model"]
    assert ratios["xception, fp32 on cpu"] == {"1": 1.0, "2": 1.0}
    assert ratios["xception, int8 on cpu"]["2"] > 0


@pytest.mark.usefixtures("xception_alone")
def test_service(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERCEPTION_PRECISION", "int8")
    assert bench("service --quick") == 0
    idle = figures("service/idle.json")
    assert idle["starts_with_all_models"]["1"]["ready_s"] > 0
    assert 50 < idle["starts_with_all_models"]["1"]["peak_mb"] < 2000
    assert idle["idle_ms"]["xception"]["p99"] >= idle["idle_ms"]["xception"]["p50"] > 0

    found = figures("service/xception.json")
    (service,), (limit,), (plain,) = (found["images_per_s"][n] for n in ("service", "without_http", "plain_server"))
    assert found["service_over_limit"] == pytest.approx(service / limit)
    assert found["service_over_plain_server"] == pytest.approx(service / plain)
    assert set(found["by_clients"]) == {"1", "16"}
    assert found["spread_with_as_many_and_more_clients"] == 0  # only one number of clients was measured
    assert found["by_photo"]["375x500"]["as_in_process"] == 1
    assert min(found["peak_mb"].values()) > 50


@pytest.mark.usefixtures("xception_alone")
def test_cache(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERCEPTION_PRECISION", "int8")
    assert bench("cache --quick") == 0
    found = figures("cache/cache.json")
    assert 0 < found["p50_ms"]["hit"] < min(found["p50_ms"]["miss, on"], found["p50_ms"]["miss, off"])
    assert found["images_per_s_of_known_photos"]["on"] > found["images_per_s_of_known_photos"]["off"] > 0
    assert found["hash_ms"]["20 MB"] > found["hash_ms"]["0.2 MB"]
    assert "miss_costs_ms" in found


@pytest.mark.usefixtures("xception_alone")
def test_triton(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("INFERCEPTION_PRECISION", "int8")
    assert bench("triton --quick") == 0
    found = figures("triton/triton.json")
    assert found["triton"] == "not measured: no --triton"
    rates, over = found["images_per_s_by_images_in_a_request"], found["over_the_session"]
    assert {n: set(rate) for n, rate in rates.items()} == {n: {"session", "service"} for n in ("1", "8")}
    assert over["8"]["service"] == pytest.approx(rates["8"]["service"] / rates["8"]["session"])
    assert set(found["idle_ms"]) == {"session, pixels", "classify, picture", "infer, picture", "service, pixels"}
    assert min(found["idle_ms"].values()) > 0
    assert "infer more than classify, idle, ms" in capsys.readouterr().out


def test_a_folder_without_triton(model_repository: Path, tmp_path: Path) -> None:
    settings = Settings(model_repository=model_repository)
    model = read_models(settings)["xception"]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)), triton(tmp_path, model, settings, 8):
        pass


@pytest.mark.usefixtures("xception_alone")
def test_load(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("INFERCEPTION_PRECISION", "int8")
    monkeypatch.setattr(under_load, "QUICK_S", 0.5)
    assert bench("load --quick --only vanish") == 0
    found = figures("load/vanish.json")
    assert found["capacity_per_s"] > 0
    assert found["right"] > 0
    assert found["wrong"] == found["failed"] == found["unanswered"] == 0
    assert Path("reports/load/vanish.png").exists()
    assert "PASS  requests unanswered" in capsys.readouterr().out


@pytest.mark.usefixtures("xception_alone")
def test_without_matplotlib_that_is_said(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("xception", {}, plots=[BarChart("images/s", {"fp32 on cpu": 1.0})])
    monkeypatch.setattr(limits, "measure", lambda *_, **__: report)
    monkeypatch.setattr(plots, "AVAILABLE", False)
    assert bench("limits") == 0
    assert capsys.readouterr().out.count("no plots were written: matplotlib is not installed") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("limits", "run `make export` first"),
        ("load --only steady", "run `make export` first"),
        ("limits --reports /proc", "/proc/limits"),
    ],
)
def test_what_can_not_be_measured(command: str, told: str, bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(command) == 1
    error = capsys.readouterr().err
    assert "can't measure: " in error
    assert told in error


def test_a_setting_that_is_none(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERCEPTION_THREADS", "0")
    assert bench("limits") == 2
    assert "INFERCEPTION_THREADS: " in capsys.readouterr().err


def test_what_the_image_of_the_service_measures_needs_no_more_than_the_service() -> None:
    program = "import sys, bench.__main__ as m; m._parser(); print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"torch", "onnx", "matplotlib", "models", "export", "tests"} & set(done.stdout.split())
