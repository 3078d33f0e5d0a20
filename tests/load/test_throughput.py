from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service import bench
from tests.load import idle, throughput

LIMITS: list[dict[str, Any]] = [
    {
        "model": "xception",
        "session_per_s": {"fp32 on cpu": {"1": 10.0, "6": 10.0}, "int8 on cpu": {"1": 30.0, "6": 36.0}},
        "decode_s": {"exact": 0.010, "fast": 0.005},
    }
]


@pytest.mark.parametrize("ways", [("fp32 on cpu", "int8 on cpu"), ("int8 on cpu",)])
def test_the_service_is_measured_beside_a_plain_server(
    model_repository: Path,
    tmp_path: Path,
    ways: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the machine has no figure of fp32, as with a GPU."""
    (limits,) = LIMITS
    limits = limits | {"session_per_s": {name: limits["session_per_s"][name] for name in ways}}
    monkeypatch.setenv("INFERCEPTION_MODEL_REPOSITORY", str(model_repository.resolve()))
    monkeypatch.setattr(throughput, "_limits", lambda *_: [limits])
    monkeypatch.setattr(bench, "OFFLINE_S", 0.5)
    monkeypatch.setattr(idle, "ROUNDS", 5)
    monkeypatch.setattr(throughput, "SECONDS", 0.5)
    monkeypatch.setattr(throughput, "ALTERNATIONS", 1)
    monkeypatch.setattr(throughput, "MANY_CLIENTS", (1, 16))
    monkeypatch.setattr(throughput, "SIDES", ((300, 400),))
    monkeypatch.setattr(throughput, "REPORTS", tmp_path)
    throughput.main()
    figures = json.loads((tmp_path / "throughput.json").read_text())
    (service,), (offline,), (plain,) = (figures[f"{name}_per_s"] for name in ("service", "offline", "plain"))
    assert figures["service_over_offline"] == pytest.approx(service / offline)
    assert figures["service_over_plain"] == pytest.approx(service / plain)
    (found,) = figures["limits"]
    whole = {"fp32 on cpu": 1.0, "int8 on cpu": pytest.approx(3.6)}
    assert found.get("session_over_float") == (whole if "fp32 on cpu" in ways else None)
    assert found["fast_over_exact_decode"] == 0.5
    idle_ms = figures["idle_ms"]
    assert idle_ms["p99"] >= idle_ms["p50"] > 0
    assert idle_ms["p50_in_process"] > 0
    assert set(figures["per_s_by_clients"]) == {"1", "16"}
    assert figures["per_s_by_photo"]["300x400"] > 0
    assert min(figures["resident_mb"].values()) > 50
    assert "times the plain server's" in capsys.readouterr().out
    assert '<img src="data:image/png;base64,' in (tmp_path / "throughput.html").read_text()
