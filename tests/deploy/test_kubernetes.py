"""The Kubernetes manifests follow Kubernetes' schema, and fit each other and the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.runtime import Runtime
from service.settings import Settings

FOLDER = Path("docker/kubernetes")
RESOURCES: list[str] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]


def manifest(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


POD = manifest("deployment.yaml")["spec"]["template"]
CONTAINERS = [*POD["spec"]["initContainers"], *POD["spec"]["containers"]]
(SERVICE,) = POD["spec"]["containers"]


@pytest.mark.parametrize("name", RESOURCES)
def test_a_manifest_follows_the_schema(name: str) -> None:
    kubernetes_validate.validate(manifest(name), "1.34", strict=True)


def test_no_manifest_is_left_out() -> None:
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}  # files for other programs
    assert {file.name for file in FOLDER.iterdir()} == {*RESOURCES, *others}


def test_everything_selects_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    assert manifest("deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service.yaml")["spec"]["selector"] == labels
    assert manifest("disruption-budget.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert (
        manifest("autoscaler.yaml")["spec"]["scaleTargetRef"]["name"] == manifest("deployment.yaml")["metadata"]["name"]
    )


def test_stopping_leaves_time_to_answer() -> None:
    asleep = SERVICE["lifecycle"]["preStop"]["sleep"]["seconds"]
    given = {each["name"].removeprefix("INFERCEPTION_").lower(): each["value"] for each in SERVICE["env"]}
    settings = Settings.model_validate(given)
    needed = asleep + (settings.drain_grace_ms + settings.max_timeout_ms + settings.body_timeout_ms) / 1e3
    assert POD["spec"]["terminationGracePeriodSeconds"] > needed


def test_probes_ask_what_the_server_answers() -> None:
    assert SERVICE["startupProbe"]["httpGet"] == SERVICE["readinessProbe"]["httpGet"]
    assert SERVICE["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    # Kubernetes sets a variable INFERCEPTION_PORT for a Service of this name. The server would read it as its setting.
    assert POD["spec"]["enableServiceLinks"] is False
    assert SERVICE["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_a_container_can_do_little(container: dict[str, Any]) -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_the_autoscaler_and_its_adapter_use_a_metric_of_the_server() -> None:
    (metric,) = manifest("autoscaler.yaml")["spec"]["metrics"]
    (rule,) = manifest("prometheus-adapter.yaml")["rules"]["custom"]
    name = metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert name in {family.name for family in Runtime(Settings()).metrics.registry.collect()}
