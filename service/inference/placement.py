"""Chooses where a model runs and in which precision."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, InvalidManifest, StartupError
from service.inference.choices import Choice, recall, remember
from service.inference.devices import DEVICES
from service.inference.devices.device import Graph
from service.inference.manifest import Manifest, Variant, private_copy
from service.sessions import Session, Sessions
from service.settings import Settings

CPU_DEVICES = ("cpu", "openvino")  # ONNX Runtime's own kernels first: they take less memory than a plugin's
_TRIES = 5

Alone = Callable[[Callable[[], float]], float]  # runs a piece of work while no other batch runs on the device


def at_once(work: Callable[[], float]) -> float:
    """Run a piece of work where nothing else runs."""
    return work()


@dataclass(frozen=True)
class Candidate:
    """One way to run a model: on a device, from a variant's file, in a precision."""

    device: str
    precision: str
    variant: Variant

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}"


@dataclass(frozen=True)
class Placement(Candidate):
    """A model that runs in one way, and why so."""

    sessions: Sessions
    reason: str
    provider: str  # ONNX Runtime's name of where the model runs
    nodes: Mapping[str, int]  # of the graph by provider, in one session


def place(folder: Path, manifest: Manifest, settings: Settings, run: Alone = at_once) -> Placement:
    """Load a model where the settings say. ``run`` runs what is measured while no other batch runs.

    Raises InvalidManifest, DeviceUnavailable, or StartupError for a precision that the model lacks.
    """
    if settings.device != "auto":
        return _fastest(folder, manifest, settings, run, [settings.device], f"device={settings.device}")
    try:
        return _fastest(folder, manifest, settings, run, ["cuda"], "auto: a CUDA device runs the model")
    except DeviceUnavailable as error:
        reason = f"auto: no CUDA ({error})"
    try:
        return _fastest(folder, manifest, settings, run, CPU_DEVICES, reason)
    except DeviceUnavailable as error:
        return _fastest(folder, manifest, settings, run, ["cpu"], f"{reason}; no OpenVINO ({error})")


def candidates(manifest: Manifest, precision: str, device: str) -> list[Candidate]:
    """Return the ways to run a model on ``device``: in ``precision``, or for "auto" in each precision that suits it.

    bf16 is the fp32 file, computed with fewer bits. Raises StartupError when the model has no such variant.
    """
    variants = {variant.precision: variant for variant in manifest.variants}
    wanted = DEVICES[device].suitable(variants) if precision == "auto" else [precision]
    files = {name: "fp32" if name == "bf16" else name for name in wanted}
    found = [Candidate(device, name, variants[file]) for name, file in files.items() if file in variants]
    if not found:
        raise StartupError(
            f"precision={precision}, but {manifest.name} version {manifest.version} has only {', '.join(variants)}: "
            f"export it with --precision {wanted[0]}"
        )
    return found


def load(folder: Path, manifest: Manifest, settings: Settings, way: Candidate, reason: str) -> Placement:
    """Make the sessions of one candidate.

    Raises DeviceUnavailable, or InvalidManifest unless the graph takes and gives what its manifest says.
    """
    size = manifest.input
    with private_copy(folder, way.variant) as file:
        sessions = DEVICES[way.device].sessions(Graph(file, way.precision, size.height, size.width), settings)
        first = sessions[0]
        found, described = (first.height, first.width, first.classes), (size.height, size.width, manifest.labels.count)
        if found != described:
            raise InvalidManifest(f"{file}: the graph's height, width, classes are {found}, the manifest's {described}")
    return Placement(way.device, way.precision, way.variant, sessions, reason, first.provider, first.nodes)


def _fastest(
    folder: Path, manifest: Manifest, settings: Settings, run: Alone, devices: Sequence[str], reason: str
) -> Placement:
    """Load the candidate that is fastest on these devices, by a measurement of this or of an earlier start.

    Of equally fast candidates the first device's most precise one is loaded.
    """
    versions = [DEVICES[device].check(settings) for device in devices]
    ways = {str(way): way for device in devices for way in candidates(manifest, settings.precision, device)}
    if len(ways) == 1:
        (only,) = ways.values()
        return load(folder, manifest, settings, only, reason)
    cache = settings.cache_folder("choices")
    depends_on = {
        "files": {name: way.variant.sha256 for name, way in ways.items()},
        "libraries": [ort.__version__, *versions],
        "threads": settings.threads,
    }
    choice = recall(cache, depends_on)
    if choice is None:
        choice = _measure(folder, manifest, settings, ways, run)
        remember(cache, depends_on, choice)
    return load(folder, manifest, settings, ways[choice.best], f"{reason}; {choice}")


def _measure(folder: Path, manifest: Manifest, settings: Settings, ways: dict[str, Candidate], run: Alone) -> Choice:
    """Load a model in all ways, to be forgotten again: they would take memory beside the way that is served."""
    sessions = {  # the plugin's first: where that fails, the others need not be loaded to be measured
        name: load(folder, manifest, settings, ways[name], "to be measured").sessions[0] for name in reversed(ways)
    }
    blank = np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    return Choice(seconds=_seconds({name: sessions[name] for name in ways}, blank, run), measured=date.today())


def _seconds(sessions: Mapping[str, Session], image: NDArray[np.uint8], run: Alone) -> dict[str, float]:
    """Return the least seconds that an image takes in several turns, after a turn in which memory and threads come."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(1 + _TRIES):
        for name, session in sessions.items():
            seconds[name].append(run(functools.partial(_timed, session, image)))
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def _timed(session: Session, image: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    session.run(image)
    return time.perf_counter() - start
