from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from service import __main__
from service.bench import idle, limits, over_http
from service.bench.server import START_S, running
from service.errors import StartupError
from service.settings import Settings


def test_works_take_turns_and_the_first_turn_does_not_count() -> None:
    clock, order = [0.0], list[str]()

    def work(name: str, *seconds: float) -> None:
        order.append(name)
        clock[0] += seconds[order.count(name) - 1]

    medians = limits.alternated(
        {"a": lambda: work("a", 9, 1, 3, 2), "b": lambda: work("b", 9, 5, 5, 50)}, rounds=3, clock=lambda: clock[0]
    )
    assert order == ["a", "b"] * 4
    assert medians == {"a": 2, "b": 5}


def photo(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OFFLINE_S", 0.1)
    monkeypatch.setattr(limits, "ROUNDS", 1)
    monkeypatch.setattr(idle, "ROUNDS", 1)
    monkeypatch.setattr(over_http, "SERVERS", 1)
    monkeypatch.setattr(over_http, "ALTERNATIONS", 1)
    monkeypatch.setattr(over_http, "SECONDS", 0.4)
    monkeypatch.setattr(over_http, "MANY_CLIENTS", (1, 16))
    monkeypatch.setattr(over_http, "SIDES", ((300, 400),))


@pytest.mark.usefixtures("quick")
def test_the_command_measures_the_machine_the_service_and_a_plain_server(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "xception").symlink_to((model_repository / "xception").resolve())
    command = f"service bench --model-repository {tmp_path}/models --max-batch-size 2 --reports {tmp_path}/reports"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--device", "cpu", "--threads", "2"])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 0
    figures = json.loads((tmp_path / "reports" / "bench.json").read_text())

    (found,) = figures["limits"]
    assert found["served"] in ("fp32 on cpu", "int8 on cpu")
    assert {way: set(rates) for way, rates in found["session_per_s"].items()} == {
        "fp32 on cpu": {"1", "2"},
        "int8 on cpu": {"1", "2"},
        "int8 on cpu in 2 streams": {"1", "2"},
    }
    assert min(rate for rates in found["session_per_s"].values() for rate in rates.values()) > 0
    assert found["session_over_float"]["fp32 on cpu"] == 1
    assert set(found["offline_per_s"]) == {"fp32 on cpu", "int8 on cpu"}
    assert found["fast_over_exact"] == pytest.approx(found["decode_s"]["fast"] / found["decode_s"]["exact"])

    (start,) = figures["starts"]
    assert 0 < start["ready_s"] < START_S
    assert 50 < start["resident_mb"] < 2000
    alone = figures["idle"]["xception"]
    assert alone["p99"] >= alone["p50"] > alone["p50_in_process"] * 0.5

    (served,) = figures["over_http"]
    (service,), (offline,), (plain,) = (served[f"{name}_per_s"] for name in ("service", "offline", "plain"))
    assert served["service_over_offline"] == pytest.approx(service / offline)
    assert served["service_over_plain"] == pytest.approx(service / plain)
    assert set(served["by_clients"]) == {"1", "16"}
    assert served["spread"] == 0
    rates = dict(zip(("per_s", "p50_ms", "p99_ms", "as_in_process"), served["by_photo"]["300x400"], strict=True))
    assert rates["per_s"] > 0
    assert rates["p99_ms"] >= rates["p50_ms"] > 0
    assert rates["as_in_process"] == 1
    assert min(served["peak_mb"].values()) > 50

    told = capsys.readouterr().out
    assert f"xception version 1, served in {found['served']}" in told
    assert "times the plain server's" in told
    page = (tmp_path / "reports" / "bench.html").read_text()
    assert "<h2>xception: session alone, images/s</h2>" in page
    assert page.count("<table>") == 6


@pytest.mark.usefixtures("quick")
def test_an_answer_that_is_none_ends_the_bench(model_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(model_repository=model_repository, device="cpu", precision="int8", max_body_bytes=10)
    with pytest.raises(RuntimeError, match="413"):
        over_http.measure_saturated(model_repository / "xception" / "1", settings, [photo(300, 400)])


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(StartupError, match="make export"),
        running("service", "serve", "--port=0", f"--model-repository={tmp_path}", environment=os.environ),
    ):
        pass


def test_a_folder_without_photos_is_not_replaced_by_golden_samples(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"service bench --model-repository {model_repository} --photos {tmp_path}"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 1
    assert "can't measure: no JPEG file" in capsys.readouterr().err


def test_a_repository_without_models_can_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "bench", "--model-repository", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 1
    assert "can't measure: no models" in capsys.readouterr().err


def test_a_model_that_can_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["service", "bench", "--model-repository", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 1
    assert "can't measure: can't read" in capsys.readouterr().err
