"""ONNX Runtime sessions: which provider runs the model, the proof that it does.

ONNX Runtime falls back to the CPU on its own in four ways: a provider missing from the build, a library that
can't be loaded, an error while a session is made, an error while one runs. Each is closed off here, so that a
session either runs on the provider it names or does not exist.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, InferenceFailed, InvalidManifest

Device = Literal["auto", "cpu", "cuda"]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Session:
    """One model on one provider. ``run`` may be called from any thread, one call at a time.

    ``provider`` is ONNX Runtime's name of where the model runs and ``reason`` why that one was chosen.
    """

    def __init__(self, model: Path, device: Device, threads: int) -> None:
        """Load the ONNX file ``model``. Raises DeviceUnavailable, or InvalidManifest for a bad file."""
        if device == "auto":
            try:
                self._session = _create(model, "cuda", threads)
                self.reason = "auto: a CUDA device runs the model"
            except DeviceUnavailable as error:
                self._session = _create(model, "cpu", threads)
                self.reason = f"auto: no CUDA ({error})"
        else:
            self._session = _create(model, device, threads)
            self.reason = f"device={device}"
        self.provider: str = self._session.get_providers()[0]
        shape = self._session.get_inputs()[0].shape  # ["batch", height, width, 3]
        self.height, self.width = int(shape[1]), int(shape[2])
        self.classes = int(self._session.get_outputs()[0].shape[1])

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 ``[n, height, width, 3]`` RGB to float32 probabilities ``[n, classes]``, off the GIL."""
        (probabilities,) = self._session.run(["probabilities"], {"images": images})
        if probabilities.shape != (len(images), self.classes):
            raise InferenceFailed(f"{len(images)} images went in, an array {probabilities.shape} came out")
        result: NDArray[np.float32] = probabilities
        return result


@functools.cache
def _share_arena() -> None:
    """Make the CPU arena that all sessions of this process share; onnxruntime allows one."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def _create(model: Path, device: Literal["cpu", "cuda"], threads: int) -> ort.InferenceSession:
    provider = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise DeviceUnavailable(f"this onnxruntime has no {provider}; install onnxruntime-gpu for device=cuda")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Memory planned by shape is kept for each batch size; without the plans all sizes and all models, which take
    # turns, share one arena.
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Long enough to bridge the gaps between operators, too short to take the cores from decoding after the last.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    if device != "cpu":
        ort.preload_dlls()  # CUDA's libraries, where they are wheels as in requirements/service-gpu.txt
        # A node that the device can't run is an error, not a slow answer.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(str(model), options, providers=[provider], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        if device == "cpu":
            raise InvalidManifest(f"onnxruntime can't load the model: {error}") from error
        raise DeviceUnavailable(f"{provider} can't load the model: {error}") from error
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise DeviceUnavailable(f"asked for {provider}, onnxruntime made {session.get_providers()}: see its log above")
    return session
