"""Where a model runs and in which precision."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, StartupError
from service.inference.choices import Choice, Choices
from service.inference.devices import cuda, openvino
from service.inference.devices.cuda_graphs import CudaGraphs
from service.inference.devices.providers import GPUS, Device, execution_providers
from service.inference.manifest import Manifest, Variant, checked_file
from service.inference.session import Session
from service.settings import Settings

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model: on a device, from a variant's file, in a precision."""

    device: Device
    precision: str
    variant: Variant

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}"


@dataclass(frozen=True, slots=True)
class Placement:
    """A model in one precision on its device, and why so.

    ``sessions`` has one for each GPU, or one for the whole CPU. ``streams`` has one for each part of a CPU that may run
    a batch of its own.
    """

    device: Device
    precision: str
    variant: Variant
    sessions: list[Session]
    streams: list[Session]
    reason: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}"

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on GPUs, which fetch pixels from pinned memory."""
        return self.device in GPUS

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
        return _fastest(folder, manifest, settings, [settings.device], f"device={settings.device}")
    try:
        return _fastest(folder, manifest, settings, ["cuda"], "auto: a CUDA device runs the model")
    except DeviceUnavailable as error:
        reason = f"auto: no CUDA ({error})"
    try:
        return _fastest(folder, manifest, settings, ["cpu", "openvino"], reason)
    except DeviceUnavailable as error:
        return _fastest(folder, manifest, settings, ["cpu"], f"{reason}; no OpenVINO ({error})")


def candidates(manifest: Manifest, precision: str, device: Device) -> list[Candidate]:
    """Return the ways to run a model on ``device``: in the precision asked for, or for ``auto`` in what suits it.

    That is fp16 on GPUs where it was exported, else fp32; and on CPUs, which don't compute in 16 bits, all others, the
    most precise first. bf16 is the fp32 file, computed in less; no export measured how it agrees, so it must be asked
    for.

    Raises StartupError when the model has none such.
    """
    variants = {variant.precision: variant for variant in manifest.variants}
    wanted = [precision]
    if precision == "auto" and device in GPUS:
        wanted = ["fp16" if "fp16" in variants else "fp32"]
    elif precision == "auto":
        wanted = ["fp32", "int8"]
    files = {name: "fp32" if name == "bf16" else name for name in wanted}
    found = [Candidate(device, name, variants[file]) for name, file in files.items() if file in variants]
    if not found:
        raise StartupError(
            f"precision={precision}, but {manifest.name} version {manifest.version} has only {', '.join(variants)}: "
            f"export it with --precision {wanted[0]}"
        )
    return found


def load(folder: Path, manifest: Manifest, settings: Settings, candidate: Candidate, reason: str) -> Placement:
    """Make the sessions of one candidate. Raises InvalidManifest or DeviceUnavailable."""
    device = candidate.device
    model = checked_file(folder, candidate.variant)
    if candidate.variant.external_data is not None:
        checked_file(folder, candidate.variant.external_data)

    def session(device_id: int, streams: int) -> Session:
        providers = execution_providers(
            device,
            device_id,
            settings,
            streams=streams,
            precision=candidate.precision,
            height=manifest.input.height,
            width=manifest.input.width,
        )
        threads = settings.threads // streams
        made = (
            CudaGraphs(model, providers, threads, settings.batch_sizes, device, device_id)
            if settings.cuda_graphs
            else Session(model, providers, threads)
        )
        if device != "cpu":
            _try_out(made, manifest, pinned=device in GPUS)
        return made

    if device in GPUS:
        sessions = [session(device_id, 1) for device_id in settings.gpus]
        return Placement(device, candidate.precision, candidate.variant, sessions, [], reason)
    streams = settings.batches_at_a_time
    narrow = []
    # The weights are there once more: a quarter of the bytes in int8, too many of them in float.
    if streams > 1 and candidate.variant.precision == "int8":
        # Sessions of one thread, and OpenVINO's of several streams, run several batches at a time.
        shared = settings.threads == streams or device == "openvino"
        narrow = [session(0, streams)] * streams if shared else [session(0, streams) for _ in range(streams)]
    return Placement(device, candidate.precision, candidate.variant, [session(0, 1)], narrow, reason)


def _fastest(folder: Path, manifest: Manifest, settings: Settings, devices: Sequence[Device], reason: str) -> Placement:
    """Load the candidate that is fastest on these devices, by a measurement of this or of an earlier start.

    Of equals it is the first device's, in the highest precision: onnxruntime's own kernels take less memory than a
    plugin's.
    """
    if set(devices) & set(GPUS):
        cuda.check(settings.gpus, tensorrt="tensorrt" in devices)
    found = {str(c): c for device in devices for c in candidates(manifest, settings.precision, device)}
    if len(found) == 1:
        (only,) = found.values()
        return load(folder, manifest, settings, only, reason)
    choices = Choices(settings.cache_folder("choices"))
    depends_on = {
        "files": {name: candidate.variant.sha256 for name, candidate in found.items()},
        "libraries": [ort.__version__, openvino.installed_version() if "openvino" in devices else None],
        "threads": [settings.threads, settings.batches_at_a_time],
    }
    choice = choices.recall(depends_on)
    if choice is None:
        if "openvino" in devices:
            openvino.cpu()  # before the others are loaded to be measured with it
        sessions = {
            name: load(folder, manifest, settings, c, "to be measured").sessions[0] for name, c in found.items()
        }
        choice = Choice(seconds=_seconds(sessions, _blank(manifest)), measured=date.today())
        choices.remember(depends_on, choice)
        del sessions
    return load(folder, manifest, settings, found[choice.best], f"{reason}; {choice}")


def _seconds(sessions: Mapping[str, Session], image: NDArray[np.uint8]) -> dict[str, float]:
    """Return the seconds that an image takes, the least of several tries in turn, once memory and threads are there."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(1 + _TRIES):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(image)
            seconds[name].append(time.perf_counter() - start)
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def _try_out(session: Session, manifest: Manifest, *, pinned: bool) -> None:
    """Run one image, on a GPU from pinned memory. Raises DeviceUnavailable when that fails."""
    image = _blank(manifest)
    if pinned:
        cuda.pin(image)
    try:
        session.run(image)
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise DeviceUnavailable(f"{session.provider} loads the model, but can't run it: {error}") from error


def _blank(manifest: Manifest) -> NDArray[np.uint8]:
    return np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8)
