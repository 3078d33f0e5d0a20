"""The InferenceService for KServe holds a pod that Kubernetes takes, and fits the server and Knative's rules.

``make test-clients`` compares KServe's own fields with KServe's types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy import test_kubernetes as kubernetes

FILE = Path("docker/kserve/inferenceservice.yaml")
MANIFEST: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
PREDICTOR = MANIFEST["spec"]["predictor"]
(CONTAINER,) = PREDICTOR["containers"]
ENVIRONMENT = {each["name"]: each["value"] for each in CONTAINER["env"]}


def test_the_pod_follows_the_schema() -> None:
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    of_kserve = {"minReplicas"}
    pod = {name: value for name, value in PREDICTOR.items() if name not in of_kserve}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": MANIFEST["metadata"], "spec": pod}
    kubernetes_validate.validate(whole, "1.34", strict=True)


def test_kserve_finds_the_container_and_puts_the_models_where_the_server_reads() -> None:
    assert CONTAINER["name"] == "kserve-container"
    assert ENVIRONMENT["INFERCEPTION_MODEL_REPOSITORY"] == "/mnt/models"
    claim = kubernetes.manifest("model-repository.yaml")["metadata"]["name"]
    assert ENVIRONMENT["STORAGE_URI"] == f"pvc://{claim}"
    assert ENVIRONMENT["PROTOCOL"] == "v2"


def test_knative_gets_one_port_and_probes_of_that_port() -> None:
    (port,) = CONTAINER["ports"]
    assert port["name"] == "http1"
    dockerfile = Path("docker/Dockerfile").read_text(encoding="utf-8")
    assert f"INFERCEPTION_PORT={port['containerPort']} " in dockerfile
    assert CONTAINER["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http1"}
    assert CONTAINER["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": "http1"}


def test_knative_allows_every_field() -> None:
    # Knative refuses a pod's own security context, its period of grace and a container's lifecycle.
    assert PREDICTOR.keys() == {"minReplicas", "containers", "volumes"}
    assert "lifecycle" not in CONTAINER


def test_the_container_is_like_that_of_the_deployment() -> None:
    deployed, pod = kubernetes.SERVICE, kubernetes.POD["spec"]["securityContext"]
    assert CONTAINER["securityContext"] == deployed["securityContext"] | {
        "runAsNonRoot": True,
        "seccompProfile": pod["seccompProfile"],
    }
    assert CONTAINER["resources"] == deployed["resources"]
    assert {mount["mountPath"] for mount in CONTAINER["volumeMounts"]} == {"/cache", "/tmp"}  # noqa: S108 - a mount
