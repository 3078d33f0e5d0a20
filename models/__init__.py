"""PyTorch architectures of the Inception family, and their published weights."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from models.spec import ModelSpec

# The catalogue. Each name is a module of this package with a SPEC, and is imported when somebody asks for it.
NETWORKS = (
    "inception_v1",
    "inception_v2",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "se_inception_v2",
    "xception",
)


def find_spec(name: str) -> ModelSpec:
    """Return the description of the network ``name``. Raises ValueError for a name that is not in ``NETWORKS``."""
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(NETWORKS)}")
    spec: ModelSpec = importlib.import_module(f"models.{name}").SPEC
    return spec


def create_model(name: str, num_classes: int = 1000, **options: Any) -> nn.Module:
    """Build the network ``name`` with random weights, in train mode.

    ``options`` are the network's keyword arguments, such as ``bn_eps``. Raises ValueError for an unknown name or an
    option's wrong value, and TypeError for an option that the network lacks.
    """
    return find_spec(name).build(num_classes=num_classes, **options)
