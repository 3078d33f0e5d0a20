"""ONNX Runtime sessions, and the proof that a model runs where it is said to.

ONNX Runtime falls back to the CPU on its own in four ways: a provider missing from the build, a library that
can't be loaded, an error while a session is made, an error while one runs. Each is closed off here, so that a
session either runs every node on the providers it names or does not exist.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, InferenceFailed, InvalidManifest
from service.inference.devices import openvino
from service.inference.devices.providers import CPU, Provider


class Session:
    """One model on one device. ``run`` may be called from several threads at a time.

    ``provider`` is ONNX Runtime's name of where the model runs, and ``nodes`` counts the graph's nodes by provider as
    ONNX Runtime assigned them.
    """

    def __init__(self, model: Path, providers: Sequence[Provider], threads: int) -> None:
        """Load the ONNX file ``model``; on a CPU ``threads`` compute, the caller's among them.

        Raises DeviceUnavailable, or InvalidManifest for a bad file.
        """
        self._session = _create(model, providers, threads)
        self.provider: str = self._session.get_providers()[0]
        self.nodes = _nodes(self._session, providers)
        shape = self._session.get_inputs()[0].shape  # ["batch", height, width, 3]
        self.height, self.width = int(shape[1]), int(shape[2])
        self.classes = int(self._session.get_outputs()[0].shape[1])

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 ``[n, height, width, 3]`` RGB to float32 probabilities ``[n, classes]``, off the GIL."""
        # Bound, the images go to the device straight from where they were decoded, which on a GPU is pinned memory.
        binding = self._session.io_binding()
        binding.bind_cpu_input("images", images)
        binding.bind_output("probabilities", "cpu")
        self._session.run_with_iobinding(binding)
        probabilities: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        if probabilities.shape != (len(images), self.classes):
            raise InferenceFailed(f"{len(images)} images went in, an array {probabilities.shape} came out")
        return probabilities


@functools.cache
def _share_arena() -> None:
    """Make the CPU arena that all sessions of this process share; onnxruntime allows one."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def _create(model: Path, providers: Sequence[Provider], threads: int) -> ort.InferenceSession:
    names = [name for name, _ in providers]
    options = ort.SessionOptions()
    if names == [openvino.PROVIDER]:
        options.add_provider_for_devices([openvino.cpu()], providers[0][1])
    elif missing := [name for name in names if name not in ort.get_available_providers()]:
        raise DeviceUnavailable(f"this onnxruntime has no {missing[0]}")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Long enough to bridge the gaps between operators, too short to take the cores from decoding after the last.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    if providers == CPU:
        # Memory planned by shape is kept for each batch size; without the plans all sizes and all models, which take
        # turns, share one arena.
        options.enable_mem_pattern = False
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    else:
        # A node that the device can't run is an error, not a slow answer.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # A plugin is in the options, and must not be named once more.
        built_in = None if names == [openvino.PROVIDER] else list(providers)
        session = ort.InferenceSession(str(model), options, providers=built_in, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        if providers == CPU:
            raise InvalidManifest(f"onnxruntime can't load the model: {error}") from error
        raise DeviceUnavailable(f"{names[0]} can't load the model: {error}") from error
    session.disable_fallback()
    if session.get_providers()[0] != names[0]:
        raise DeviceUnavailable(f"asked for {names[0]}, onnxruntime made {session.get_providers()}: see its log above")
    return session


def _nodes(session: ort.InferenceSession, providers: Sequence[Provider]) -> dict[str, int]:
    """Count the nodes by provider. Raises DeviceUnavailable when one is elsewhere, or none on the first provider."""
    nodes = Counter(part.ep_name for part in session.get_provider_graph_assignment_info() for _ in part.get_nodes())
    elsewhere = {name: count for name, count in nodes.items() if name not in dict(providers)}
    first = providers[0][0]
    if elsewhere or not nodes[first]:
        raise DeviceUnavailable(f"of the model's nodes not all run on {first}, but {dict(nodes)}")
    return dict(nodes)
