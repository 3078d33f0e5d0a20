"""Where a model runs and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service import cuda
from service.errors import DeviceUnavailable, StartupError
from service.manifest import Manifest, Variant, checked_file
from service.providers import Device, execution_providers
from service.session import Session
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Placement:
    """A model in one precision on its device: a session on each GPU, or one on the CPU. ``reason`` is why there."""

    device: Device
    precision: str
    sessions: list[Session]
    reason: str

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of where the model runs."""
        return self.sessions[0].provider

    @property
    def nodes(self) -> dict[str, int]:
        """How many of the graph's nodes each provider runs, on each device."""
        return self.sessions[0].nodes


def place(folder: Path, manifest: Manifest, settings: Settings) -> Placement:
    """Load a model where the settings say.

    Raises InvalidManifest, DeviceUnavailable, or StartupError for a precision that the model lacks.
    """
    if settings.device != "auto":
        return _place(folder, manifest, settings, settings.device, f"device={settings.device}")
    try:
        return _place(folder, manifest, settings, "cuda", "auto: a CUDA device runs the model")
    except DeviceUnavailable as error:
        return _place(folder, manifest, settings, "cpu", f"auto: no CUDA ({error})")


def _place(folder: Path, manifest: Manifest, settings: Settings, device: Device, reason: str) -> Placement:
    if device != "cpu":
        cuda.check(settings.gpus, tensorrt=device == "tensorrt")
    variant = choose_variant(manifest, settings.precision, device)
    model = checked_file(folder, variant)
    sessions = []
    for device_id in [0] if device == "cpu" else settings.gpus:
        providers = execution_providers(
            device,
            device_id,
            settings,
            half=variant.precision == "fp16",
            height=manifest.input.height,
            width=manifest.input.width,
        )
        session = Session(model, providers, settings.threads)
        if device != "cpu":
            _try_out(session, manifest)
        sessions.append(session)
    return Placement(device, variant.precision, sessions, reason)


def _try_out(session: Session, manifest: Manifest) -> None:
    """Run one batch on a GPU from pinned memory. Raises DeviceUnavailable when that fails."""
    images = np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    cuda.pin(images)
    try:
        session.run(images)
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise DeviceUnavailable(f"{session.provider} loads the model, but can't run it: {error}") from error


def choose_variant(manifest: Manifest, precision: str, device: Device) -> Variant:
    """Return the variant to serve: the precision asked for, or for ``auto`` fp16 on GPUs where there is one, else fp32.

    Raises StartupError when the model has none such.
    """
    variants = {variant.precision: variant for variant in manifest.variants}
    if precision == "auto":
        precision = "fp16" if device != "cpu" and "fp16" in variants else "fp32"
    if precision not in variants:
        raise StartupError(
            f"precision={precision}, but {manifest.name} version {manifest.version} has only {', '.join(variants)}: "
            f"export it with --precision {precision}"
        )
    return variants[precision]
