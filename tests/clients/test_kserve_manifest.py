"""The InferenceService in docker/kserve has fields that KServe and Kubernetes know, by the types of their clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kserve
import kubernetes.client
import pytest
import yaml

pytestmark = pytest.mark.clients

MANIFEST = yaml.safe_load(Path("docker/kserve/inferenceservice.yaml").read_text())


def unknown(value: Any, kind: str) -> Iterator[str]:
    """Yield the names of fields that ``kind``, a type of either client, has not."""
    model = getattr(kserve, kind, None) or getattr(kubernetes.client, kind, None)
    if listed := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        for element in value:
            yield from unknown(element, listed[1])
    elif model is not None:
        kinds = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
        for name, inner in value.items():
            yield from unknown(inner, kinds[name]) if name in kinds else [name]


def test_every_field_is_known() -> None:
    assert list(unknown(MANIFEST, "V1beta1InferenceService")) == []


@pytest.mark.parametrize("where", [("spec",), ("spec", "predictor"), ("spec", "predictor", "containers", 0, "env", 0)])
def test_an_unknown_field_is_found(where: tuple[str | int, ...]) -> None:
    wrong = yaml.safe_load(yaml.safe_dump(MANIFEST))
    inner = wrong
    for step in where:
        inner = inner[step]
    inner["invented"] = 1
    assert list(unknown(wrong, "V1beta1InferenceService")) == ["invented"]
