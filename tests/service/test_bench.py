from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from service import __main__
from service.bench import idle, limits, over_http, run
from service.bench.client import classify_request, keep_asking
from service.bench.server import START_S, Server, running
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
    monkeypatch.setattr(over_http, "MANY_CLIENTS", (1, 16, 17))
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
    whole, streams = (found["session_per_s"][way]["2"] for way in ("fp32 on cpu", "int8 on cpu in 2 streams"))
    assert found["session_over_float"]["int8 on cpu in 2 streams"] == pytest.approx(streams / whole)
    assert set(found["offline_per_s"]) == {"fp32 on cpu", "int8 on cpu"}
    assert found["fast_over_exact"] == pytest.approx(found["decode_s"]["fast"] / found["decode_s"]["exact"])

    (start,) = figures["starts"]
    assert 0 < start["ready_s"] < START_S
    assert 50 < start["peak_mb"] < 2000
    alone = figures["idle"]["xception"]
    assert alone["p99"] >= alone["p50"] > alone["p50_in_process"] * 0.5

    (served,) = figures["over_http"]
    (service,), (offline,), (plain,) = (served[f"{name}_per_s"] for name in ("service", "offline", "plain"))
    assert served["service_over_offline"] == pytest.approx(service / offline)
    assert served["service_over_plain"] == pytest.approx(service / plain)
    assert set(served["by_clients"]) == {"1", "16", "17"}
    many = [served["by_clients"][clients]["per_s"] for clients in ("16", "17")]
    assert served["spread"] == pytest.approx(max(many) / min(many) - 1)
    rates = served["by_photo"]["300x400"]
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
def test_an_answer_that_is_none_ends_the_bench(model_repository: Path) -> None:
    settings = Settings(model_repository=model_repository, device="cpu", precision="int8", max_body_bytes=10)
    with pytest.raises(RuntimeError, match="413"):
        over_http.measure_saturated(model_repository / "xception" / "1", settings, [photo(300, 400)])


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={tmp_path}"]
    with pytest.raises(StartupError, match="make export"), running(Server, command, os.environ):
        pass


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"])
def test_an_idle_server_that_closes_the_connection_ends_the_bench(model_repository: Path, said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        settings = Settings(device="cpu", precision="int8")
        with pytest.raises(ConnectionError, match="closed"):
            idle.measure(ours, model_repository / "xception" / "1", settings, [photo(300, 400)])


async def _nobody_answers() -> None:
    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        await keep_asking(server.sockets[0].getsockname(), [classify_request(b"jpeg", {})], clients=2, seconds=10)


def test_a_server_that_closes_connections_is_one_error() -> None:
    with pytest.raises(ConnectionError, match="lost the server"):
        asyncio.run(_nobody_answers())


def test_each_model_is_measured_in_its_highest_version_and_the_default_one_saturated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("a/2", "a/10", "b/1"):
        (tmp_path / version).mkdir(parents=True)
    measured, saturated = list[Path](), list[Path]()
    monkeypatch.setattr(limits, "measure", lambda folder, *_: measured.append(folder))
    monkeypatch.setattr(run, "measure_idle", lambda samples, _: ([], {folder.parent.name: 0 for folder in samples}))
    monkeypatch.setattr(run, "measure_saturated", lambda folder, *_: saturated.append(folder))
    report = run.run(Settings(model_repository=tmp_path, default_model="b"), [b"jpeg"])
    assert measured == [tmp_path / "a" / "10", tmp_path / "b" / "1"]
    assert set(report.idle) == {"a", "b"}
    assert saturated == [tmp_path / "b" / "1"]
    run.run(Settings(model_repository=tmp_path), [b"jpeg"])
    assert saturated[1:] == measured[:2]
    with pytest.raises(StartupError, match="'c'"):
        run.run(Settings(model_repository=tmp_path, default_model="c"), [b"jpeg"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--model-repository {empty}", "no models"),
        ("--model-repository {broken}", "can't read"),
        ("--photos {empty}", "no JPEG file"),  # golden samples don't take their place
    ],
)
def test_what_can_not_be_measured(
    options: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    (broken / "model" / "1").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["service", "bench", *options.format(empty=empty, broken=broken).split()])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 1
    assert f"can't measure: {told}" in capsys.readouterr().err
