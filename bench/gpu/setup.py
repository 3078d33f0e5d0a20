"""The measured model on its device, for the service's sessions, for bare onnxruntime and for torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.in_process import InProcess, as_served, decoded
from bench.repository import Model, golden_samples
from service.inference.devices import DEVICES, cpu, cuda
from service.inference.session import Provider
from service.settings import Settings

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Setup:
    """A model and the measured device. The device ``cpu`` means a rehearsal."""

    model: Model
    settings: Settings
    device: Device

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, so that this is no rehearsal."""
        return self.device == "cuda"

    @property
    def precision(self) -> str:
        """The precision that suits the device."""
        return "fp16" if self.on_gpu else "fp32"

    @property
    def sizes(self) -> list[int]:
        """The batch sizes to measure by default, the most important first."""
        return [32, 1, 8, 64] if self.on_gpu else [2, 1]

    def chosen(self, precision: str, largest: int, *, graphs: bool = False, **others: object) -> Settings:
        """Return settings for this device. ``tf32`` is the fp32 variant, computed in lower precision."""
        told: dict[str, object] = {
            "device": self.device,
            "precision": "fp32" if precision == "tf32" else precision,
            "tf32": precision == "tf32",
            "max_batch_size": largest,
            "cuda_graphs": graphs,
        }
        return Settings.model_validate(self.settings.model_dump(exclude_unset=True) | told | others)

    def placed(self, precision: str, largest: int, *, graphs: bool = False) -> InProcess:
        """Return the model as the service would run it. Raises StartupError, also if CUDA graphs are impossible."""
        return as_served(self.model, self.chosen(precision, largest, graphs=graphs))

    def images(self, count: int) -> NDArray[np.uint8]:
        """Return ``count`` decoded photos, repeated as needed and pinned for a GPU. Zeros would run faster."""
        photos = decoded(self.model, self.model.photos, self.settings)
        images = np.resize(photos, (count, *photos.shape[1:]))
        self.pin(images)
        return images

    def golden(self) -> NDArray[np.uint8]:
        """Return the golden samples, decoded exactly."""
        return decoded(self.model, golden_samples(self.model.folder, self.model.manifest), self.settings)

    def pin(self, images: NDArray[np.uint8]) -> None:
        """Pin memory, unless this is a rehearsal."""
        DEVICES[self.device].pin(images)

    def file(self, precision: str) -> str:
        """Return the path of a variant's graph. Raises KeyError if the model lacks the variant."""
        files: dict[str, str] = {variant.precision: variant.file for variant in self.model.manifest.variants}
        return str(self.model.folder / files["fp32" if precision == "tf32" else precision])

    def provider(self, precision: str, largest: int) -> Provider:
        """Return onnxruntime's provider with the service's options."""
        return cuda.provider(0, self.chosen(precision, largest)) if self.on_gpu else cpu.PROVIDERS[0]

    def bare_session(self, precision: str, largest: int) -> ort.InferenceSession:
        """Return onnxruntime's own session with the service's options, for calls that the service does not make."""
        return ort.InferenceSession(self.file(precision), providers=[self.provider(precision, largest)])
