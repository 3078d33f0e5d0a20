"""Ways to run a batch: the service's sessions, onnxruntime with its input already on the device, and torch.

In each way, the answer is on the host before the next batch starts. The ways named after ``service`` and ``graphs``
take pixels from pinned host memory, as the service does. ``torch_from_host`` does so too. In the other ways, the pixels
are already on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from bench.gpu.network import load_network
from bench.gpu.setup import Setup
from service.sessions import Session

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Way:
    """``runs(size)`` returns a function that runs ``size`` images. ``at_a_time`` batches run side by side."""

    runs: Callable[[int], Callable[[], object]]
    at_a_time: int = 1


def _service(setup: Setup, precision: str, images: Images, *, graphs: bool = False) -> Way:
    session = setup.placed(precision, len(images), graphs=graphs).session
    return Way(lambda size: partial(session.run, images[:size]))


def _side_by_side(setup: Setup, precision: str, images: Images, *, count: int, graphs: bool) -> Way:
    """Return a way to run ``count`` batches in threads, so that one batch's copies overlap another's computation."""
    first = setup.placed(precision, len(images), graphs=graphs).session
    # A session with CUDA graphs runs in one thread only, so each thread has a session of its own.
    others = [setup.placed(precision, len(images), graphs=True).session if graphs else first for _ in range(count - 1)]
    copies = [images.copy() for _ in range(count)]
    for copy in copies:
        setup.pin(copy)
    pool = ThreadPoolExecutor(count)

    def run(pair: tuple[Session, Images], size: int) -> object:
        return pair[0].run(pair[1][:size])

    pairs = list(zip([first, *others], copies, strict=True))
    return Way(lambda size: lambda: list(pool.map(partial(run, size=size), pairs)), count)


def _resident(setup: Setup, precision: str, images: Images) -> Way:
    session = setup.bare_session(precision, len(images))

    def runs(size: int) -> Callable[[], object]:
        binding = session.io_binding()
        binding.bind_ortvalue_input("images", ort.OrtValue.ortvalue_from_numpy(images[:size], setup.device, 0))
        binding.bind_output("probabilities", "cpu")
        return partial(session.run_with_iobinding, binding)

    return Way(runs)


def _torch(setup: Setup, precision: str, images: Images, *, how: str) -> Way:
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = torch.float16 if precision == "fp16" else torch.float32
    network = load_network(setup.model).to(setup.device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
    host = torch.from_numpy(images.copy())
    host = host.pin_memory() if setup.on_gpu else host
    there = host.to(setup.device)
    if how == "compiled":
        network = torch.compile(network, mode="reduce-overhead", dynamic=False)

    def run(size: int) -> torch.Tensor:
        given = host[:size].to(setup.device, non_blocking=True) if how == "from_host" else there[:size]
        with torch.inference_mode():
            return _probabilities(network, given).cpu()

    if how == "graph":
        return Way(lambda size: _captured(network, there[:size]))
    return Way(lambda size: partial(run, size))


def _captured(network: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """Record a batch as a CUDA graph. Return a function that replays the graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        probabilities = _probabilities(network, images)

    def replay() -> torch.Tensor:
        graph.replay()
        return probabilities.cpu()

    return replay


def _probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = network(images)
    return logits.float().softmax(1)


WAYS: dict[str, Callable[[Setup, str, Images], Way]] = {
    "service": _service,
    "graphs": partial(_service, graphs=True),
    "resident": _resident,
    "service_twice": partial(_side_by_side, count=2, graphs=False),
    "service_thrice": partial(_side_by_side, count=3, graphs=False),
    "graphs_twice": partial(_side_by_side, count=2, graphs=True),
    "graphs_thrice": partial(_side_by_side, count=3, graphs=True),
    "torch": partial(_torch, how="eager"),
    "torch_from_host": partial(_torch, how="from_host"),
    "torch_graph": partial(_torch, how="graph"),
    "torch_compiled": partial(_torch, how="compiled"),
}
