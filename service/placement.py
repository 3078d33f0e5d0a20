"""Where a model runs and in which precision."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service import cuda
from service.cuda_graphs import CudaGraphs
from service.errors import DeviceUnavailable, StartupError
from service.manifest import Manifest, Variant, checked_file
from service.providers import Device, execution_providers
from service.session import Session
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Placement:
    """A model in one precision on its device: its sessions, one on each GPU or for each CPU stream, and why so."""

    device: Device
    variant: Variant
    sessions: list[Session]
    reason: str

    @property
    def precision(self) -> str:
        """What the model computes in."""
        return self.variant.precision

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
    placements = [
        Placement(device, variant, _sessions(folder, manifest, settings, device, variant), reason)
        for variant in candidates(manifest, settings.precision, device)
    ]
    if len(placements) == 1:
        return placements[0]
    image = np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    seconds = [_seconds(placement.sessions[0], image) for placement in placements]
    measured = ", ".join(
        f"{placement.precision} {taken * 1e3:.0f} ms" for placement, taken in zip(placements, seconds, strict=True)
    )
    fastest = placements[seconds.index(min(seconds))]
    return replace(fastest, reason=f"{reason}; {fastest.precision} is fastest (an image takes {measured})")


def candidates(manifest: Manifest, precision: str, device: Device) -> list[Variant]:
    """Return the variants that may be served: of the precision asked for, or for ``auto`` what suits the device.

    That is fp16 on GPUs where it was exported, else fp32; and on CPUs, which don't compute in 16 bits, all others.
    Raises StartupError when the model has none such.
    """
    variants = {variant.precision: variant for variant in manifest.variants}
    wanted = [precision]
    if precision == "auto" and device == "cpu":
        wanted = ["fp32", "int8"]
    elif precision == "auto":
        wanted = ["fp16" if "fp16" in variants else "fp32"]
    found = [variants[name] for name in wanted if name in variants]
    if not found:
        raise StartupError(
            f"precision={precision}, but {manifest.name} version {manifest.version} has only {', '.join(variants)}: "
            f"export it with --precision {wanted[0]}"
        )
    return found


def _sessions(folder: Path, manifest: Manifest, settings: Settings, device: Device, variant: Variant) -> list[Session]:
    model = checked_file(folder, variant)
    sessions = []
    threads = max(1, settings.threads // settings.streams)
    for device_id in [0] * settings.streams if device == "cpu" else settings.gpus:
        providers = execution_providers(
            device,
            device_id,
            settings,
            half=variant.precision == "fp16",
            height=manifest.input.height,
            width=manifest.input.width,
        )
        session = (
            CudaGraphs(model, providers, threads, settings.batch_sizes, device, device_id)
            if settings.cuda_graphs
            else Session(model, providers, threads)
        )
        if device != "cpu":
            _try_out(session, manifest)
        sessions.append(session)
    return sessions


def _try_out(session: Session, manifest: Manifest) -> None:
    """Run one batch on a GPU from pinned memory. Raises DeviceUnavailable when that fails."""
    images = np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    cuda.pin(images)
    try:
        session.run(images)
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise DeviceUnavailable(f"{session.provider} loads the model, but can't run it: {error}") from error


def _seconds(session: Session, image: NDArray[np.uint8]) -> float:
    """Return the seconds that an image takes, once memory and threads are there."""
    session.run(image)
    start = time.perf_counter()
    session.run(image)
    return time.perf_counter() - start
