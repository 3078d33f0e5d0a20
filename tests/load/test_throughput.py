from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.load import throughput

LIMITS: list[dict[str, Any]] = [
    {
        "model": "xception",
        "session_per_s": {"fp32": {"1": 10.0, "6": 10.0}, "int8": {"1": 30.0, "6": 36.0}},
        "decode_s": {"exact": 0.010, "fast": 0.005},
        "offline_per_s": {"fp32": 9.0, "int8": 33.0},
    }
]


@pytest.mark.parametrize("precisions", [("fp32", "int8"), ("int8",)])
def test_the_service_is_measured_beside_a_plain_server(
    model_repository: Path,
    tmp_path: Path,
    precisions: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the machine has no figure of fp32, as with a GPU."""
    (limits,) = LIMITS
    limits = limits | {"session_per_s": {name: limits["session_per_s"][name] for name in precisions}}
    monkeypatch.setenv("INFERCEPTION_MODEL_REPOSITORY", str(model_repository.resolve()))
    monkeypatch.setattr(throughput, "_limits", lambda *_: [limits])
    monkeypatch.setattr(throughput, "SECONDS", 0.5)
    monkeypatch.setattr(throughput, "ALTERNATIONS", 1)
    monkeypatch.setattr(throughput, "MANY_CLIENTS", (1, 16))
    monkeypatch.setattr(throughput, "SIDES", ((300, 400),))
    monkeypatch.setattr(throughput, "REPORTS", tmp_path)
    throughput.main()
    figures = json.loads((tmp_path / "throughput.json").read_text())
    (service,), (plain,) = figures["service_per_s"], figures["plain_per_s"]
    assert figures["service_over_plain"] == pytest.approx(service / plain)
    assert figures["service_over_offline"] == pytest.approx(service / LIMITS[0]["offline_per_s"][figures["precision"]])
    assert figures.get("session_int8_over_fp32") == (pytest.approx(3.6) if "fp32" in precisions else None)
    assert set(figures["per_s_by_clients"]) == {"1", "16"}
    assert figures["per_s_by_photo"]["300x400"] > 0
    assert min(figures["resident_mb"].values()) > 50
    assert "times the plain server's" in capsys.readouterr().out
    assert '<img src="data:image/png;base64,' in (tmp_path / "throughput.html").read_text()
