"""ONNX Runtime sessions, and the proof that a model runs where it is said to.

ONNX Runtime falls back to the CPU on its own in four ways: a provider is missing from the build, a library can't be
loaded, an error occurs while a session is made, an error occurs while a session runs. This module closes off all four,
so that a session either runs every node on the providers that it was given or does not exist.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, InferenceFailed, InvalidManifest

Provider = tuple[str, dict[str, str]]  # ONNX Runtime's name of it, and its options


class OnnxSession:
    """One model on one device. Several threads may call ``run`` at a time.

    ``provider`` is ONNX Runtime's name of where the model runs. ``nodes`` counts the graph's nodes by the provider to
    which ONNX Runtime assigned them.
    """

    def __init__(self, model: Path, providers: Sequence[Provider], options: ort.SessionOptions) -> None:
        """Load the ONNX file ``model`` on ``providers``, the best first.

        Raises DeviceUnavailable when they don't load it or don't run all of it. Raises InvalidManifest for a graph
        with another input or output than the model repository's.
        """
        self._session = _create(model, providers, options)
        self.provider: str = self._session.get_providers()[0]
        self.nodes = _nodes(self._session, providers)
        self.height, self.width, self.classes = _shape(self._session)

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


def session_options(threads: int) -> ort.SessionOptions:
    """Return what every session is told. On a CPU ``threads`` compute, the caller's among them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Threads spin long enough to bridge the gaps between operators, and too short to take the cores from decoders.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    return options


def _create(model: Path, providers: Sequence[Provider], options: ort.SessionOptions) -> ort.InferenceSession:
    names = [name for name, _ in providers]
    plugin = options.has_providers()  # then the options name the providers, which must not be named once more
    if not plugin and (missing := [name for name in names if name not in ort.get_available_providers()]):
        raise DeviceUnavailable(f"this onnxruntime has no {missing[0]}")
    if "CPUExecutionProvider" not in names:
        # A node that the device can't run is an error, not a slow answer.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(
            str(model), options, providers=None if plugin else list(providers), enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
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


def _shape(session: ort.InferenceSession) -> tuple[int, int, int]:
    """Return height, width and number of classes. Raises InvalidManifest for another input or no probabilities."""
    inputs = [(found.name, found.type, found.shape) for found in session.get_inputs()]
    outputs = {found.name: (found.type, found.shape) for found in session.get_outputs()}
    match inputs, outputs:
        case (
            [("images", "tensor(uint8)", [_, int(height), int(width), 3])],
            {"probabilities": ("tensor(float)", [_, int(classes)])},
        ):
            return height, width, classes
    raise InvalidManifest(
        f"the graph maps {inputs} to {outputs}, not images, uint8 [batch, height, width, 3], to probabilities, "
        "float [batch, classes]; re-export the model"
    )
