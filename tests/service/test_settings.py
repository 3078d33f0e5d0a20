from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import settings
from service.settings import Settings, available_cpus


def test_environment_sets_what_arguments_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERCEPTION_MAX_BATCH_SIZE", "4")
    monkeypatch.setenv("INFERCEPTION_PORT", "1")
    found = Settings(port=2)
    assert (found.max_batch_size, found.port) == (4, 2)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("DEVICE", "gpu", "'auto', 'cpu', 'openvino', 'cuda' or 'tensorrt'"),
        ("DEVICE_IDS", "0,1", "several GPUs need device=cuda"),
        ("DEVICE_IDS", "first", "should match pattern"),
        ("PRECISION", "bf16", "bf16 needs device=openvino"),
        ("CUDA_GRAPHS", "true", "CUDA graphs need device=cuda"),
        ("PORT", "70000", "65535"),
        ("THREADS", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_names_the_setting_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    done = run("serve", **{f"INFERCEPTION_{name}": value})
    assert done.returncode == 2
    assert f"INFERCEPTION_{name}" in done.stderr
    assert allowed in done.stderr
    assert "Traceback" not in done.stderr


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


def test_no_option_is_accepted_and_ignored() -> None:
    done = run("check", "--port=1")
    assert done.returncode == 2
    assert "unrecognized arguments: --port=1" in done.stderr


def test_check_names_a_bad_variable_of_the_server_too() -> None:
    done = run("check", INFERCEPTION_PORT="http")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--port or INFERCEPTION_PORT: ")


def test_every_option_is_in_a_group_and_the_most_important_come_first() -> None:
    shown = run("serve", "--help").stdout
    groups = re.split(r"^([a-z ]+):$", shown, flags=re.MULTILINE)[1:]
    pairs = zip(groups[::2], groups[1::2], strict=True)
    options = {title: re.findall(r"^  --([a-z0-9-]+)", text, re.MULTILINE) for title, text in pairs}
    assert list(options)[:2] == ["options", "most important"]
    assert len(options["most important"]) == 8
    named = {name.replace("-", "_") for names in options.values() for name in names}
    assert named == set(Settings.model_fields)


def test_an_address_in_use_ends_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", f"--port={taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr or "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("setting", [{"tf32": True}, {"gpu_memory_limit_mb": 1000}, {"device_ids": "1"}])
def test_settings_of_gpus_are_refused_on_cpus(setting: dict[str, object]) -> None:
    for device in ("cpu", "openvino"):
        with pytest.raises(ValidationError, match="only GPUs have this setting"):
            Settings.model_validate({"device": device} | setting)
    Settings.model_validate({"device": "cuda"} | setting)


@pytest.mark.parametrize("device", ["auto", "cpu", "tensorrt"])
def test_cuda_graphs_are_refused_where_nothing_would_record_them(device: str) -> None:
    with pytest.raises(ValidationError, match="CUDA graphs need device=cuda"):
        Settings.model_validate({"device": device, "cuda_graphs": True})
    assert Settings(device="cuda", cuda_graphs=True).cuda_graphs


@pytest.mark.parametrize(
    "setting",
    [
        {"root_path": "api"},
        {"root_path": "/api/"},
        {"root_path": "/é"},
        {"trusted_proxies": "proxy.example"},
        {"trusted_proxies": "10.0.0.1/8"},
        {"cors_origins": "a.example"},
        {"cors_origins": "https://a.example/"},
        {"cors_origins": "https://a.example,*"},
    ],
)
def test_what_would_match_nothing_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(setting)


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (6, [6, 3, 1]), (8, [8, 4, 2, 1])])
def test_batch_sizes_go_down_to_one(largest: int, sizes: list[int]) -> None:
    assert Settings(max_batch_size=largest).batch_sizes == sizes


@pytest.mark.parametrize(("quota", "cpus"), [(0.2, 1), (1.2, 2), (math.inf, 64)])
def test_cpus_are_those_that_a_quota_fills(monkeypatch: pytest.MonkeyPatch, quota: float, cpus: int) -> None:
    monkeypatch.setattr(settings, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert available_cpus() == cpus


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERCEPTION_CACHE")
    unset = Settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"INFERCEPTION_{name.upper()}", "")
    assert Settings() == unset


@pytest.mark.parametrize("option", ["host", "port", "model-repository", "default-model", "cache", "device-ids"])
def test_an_empty_option_is_refused(option: str) -> None:
    done = run("serve", f"--{option}", "")
    assert done.returncode == 2
    assert f"--{option} or INFERCEPTION_{option.replace('-', '_').upper()}: " in done.stderr


def test_a_cache_that_can_not_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(cache=tmp_path).cache_folder("a") == tmp_path / "a"
    assert (tmp_path / "a").is_dir()
    (tmp_path / "file").touch()
    assert Settings(cache=tmp_path / "file").cache_folder("a") is None
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root, who may run these tests, may write anywhere
    assert Settings(cache=tmp_path).cache_folder("a") is None


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERCEPTION_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Settings().cache_folder("a") == tmp_path / ".cache" / "inferception" / "a"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert Settings().cache_folder("a") == tmp_path / "mine" / "inferception" / "a"
