"""ONNX Runtime's own kernels, for any CPU."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import onnxruntime as ort
from typing_extensions import override

from service.errors import DeviceUnavailable, InvalidManifest
from service.inference.devices.device import Device, Graph
from service.inference.session import OnnxSession, Provider, session_options
from service.settings import Settings

PROVIDERS: Sequence[Provider] = [("CPUExecutionProvider", {})]


class Cpu(Device):
    """Any CPU: every build of ONNX Runtime runs on it. CPUs don't compute in fp16."""

    @override
    def check(self, settings: Settings) -> str:
        return str(ort.__version__)

    @override
    def suitable(self, exported: Collection[str]) -> list[str]:
        return ["fp32", "int8"]

    @override
    def sessions(self, graph: Graph, settings: Settings) -> tuple[OnnxSession, ...]:
        return (session(graph.file, settings.threads),)


def session(file: Path, threads: int) -> OnnxSession:
    """Return a session on which ``threads`` compute, the caller's among them. Raises InvalidManifest for a bad file."""
    options = session_options(threads)
    # ONNX Runtime keeps memory that it planned by shape for each batch size. Without the plans all sizes and all
    # models, which take turns, share one arena.
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return OnnxSession(file, PROVIDERS, options)
    except DeviceUnavailable as error:  # a CPU runs every sound model
        raise InvalidManifest(str(error)) from error


@functools.cache
def _share_arena() -> None:
    """Make the CPU arena that all sessions of this process share; onnxruntime allows one."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)
