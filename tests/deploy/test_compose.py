"""docker-compose.yml follows its published schema and the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

COMPOSE: dict[str, Any] = yaml.safe_load(Path("docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"export", "photos", "locust", "locust-headless"}


def test_it_follows_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, "docker-compose.yml"], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("profile", "more"),
    [
        (None, set()),
        ("gpu", {"service-gpu"}),
        ("scale", {"replica", "proxy"}),
        ("load", {"photos", "locust"}),
        ("load-headless", {"photos", "locust-headless"}),
    ],
)
def test_profiles_add_services(profile: str | None, more: set[str]) -> None:
    started = {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}
    assert started == {"export", "service", "prometheus", "grafana"} | more
    waited_for = {dependency for name in started for dependency in SERVICES[name].get("depends_on", {})}
    assert waited_for <= started


@pytest.mark.parametrize("name", SERVICES)
def test_what_must_come_first_has_come(name: str) -> None:
    for dependency, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if dependency in ONCE else "service_healthy")


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, _, *mode = mount.split(":")
        if source.startswith("."):
            assert Path(source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_built_here_or_of_a_fixed_version(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        build = service["build"]
        assert service["image"] == f"inferception-{build['target']}"
        assert re.search(rf"^FROM \S+ AS {build['target']}$", Path(build["dockerfile"]).read_text(), re.MULTILINE)
    else:
        assert re.search(r":\$\{[A-Z]+_VERSION:-v?\d+\.\d+\.\d+\}", service["image"])


@pytest.mark.parametrize("name", ["service", "service-gpu", "replica", "proxy"])
def test_stopping_leaves_time_to_answer(name: str) -> None:
    settings = Settings.model_fields
    needed = sum(settings[name].default for name in ("drain_grace_ms", "max_timeout_ms", "body_timeout_ms")) / 1e3
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > needed


def test_settings_exist() -> None:
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            name, _, setting = variable.partition("_")
            assert name != "INFERCEPTION" or setting.lower() in Settings.model_fields


def test_prometheus_finds_every_server() -> None:
    (job,) = yaml.safe_load(Path("docker/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    servers = {name for name, service in SERVICES.items() if "INFERCEPTION_PORT" in service.get("environment", {})}
    (discovery,) = job["dns_sd_configs"]
    assert set(discovery["names"]) == servers
    assert {SERVICES[name]["environment"]["INFERCEPTION_PORT"] for name in servers} == {discovery["port"]}
