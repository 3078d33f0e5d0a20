"""CUDA, on NVIDIA GPUs, each of which runs its own batches.

onnxruntime only logs which library it could not load, and carries on without a GPU. So ``check`` first tries each
library that its providers are linked with. A missing library is an error that says what to install.
"""

import contextlib
import ctypes
import io
import weakref
from collections.abc import Collection
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from typing_extensions import override

from service.errors import DeviceUnavailable
from service.inference.devices.cuda_graphs import CudaGraphs
from service.inference.devices.device import Device, Graph
from service.inference.session import OnnxSession, Provider, session_options
from service.settings import Settings

_INSTALL = "install requirements/service-gpu.txt"
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU
_CURES = {
    35: "install an NVIDIA driver for CUDA {major} (580 or newer for 13)",  # cudaErrorInsufficientDriver
    100: "see that nvidia-smi lists a GPU and CUDA_VISIBLE_DEVICES hides none of them",  # cudaErrorNoDevice
}


class Cuda(Device):
    """GPUs, each of which has a session of its own."""

    kernels_by_size = True

    @override
    def check(self, settings: Settings) -> str:
        if missing := self.missing_libraries():
            raise DeviceUnavailable("; ".join(missing))
        count = ctypes.c_int()
        _call("cudaGetDeviceCount", ctypes.byref(count))
        if beyond := [number for number in settings.gpus if number >= count.value]:
            raise DeviceUnavailable(f"device_ids has GPU {beyond[0]}, but there are {count.value}, counted from 0")
        # For this thread from now on, or else pinning takes memory of GPU 0.
        _call("cudaSetDevice", ctypes.c_int(settings.gpus[0]))
        return str(ort.__version__)

    @override
    def suitable(self, exported: Collection[str]) -> list[str]:
        return ["fp16" if "fp16" in exported else "fp32"]

    @override
    def sessions(self, graph: Graph, settings: Settings) -> tuple[OnnxSession, ...]:
        return tuple(self._session(graph, gpu, settings) for gpu in settings.gpus)

    @override
    def pin(self, memory: NDArray[Any]) -> None:
        address = ctypes.c_void_p(memory.ctypes.data)
        _call("cudaHostRegister", address, ctypes.c_size_t(memory.nbytes), ctypes.c_uint(_PORTABLE))
        weakref.finalize(memory, _runtime().cudaHostUnregister, address)

    def missing_libraries(self) -> list[str]:
        """Return what the machine lacks, with cures. Raises DeviceUnavailable for a build without CUDA."""
        major = _major()
        with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime prints also what is not needed
            ort.preload_dlls()
        missing = []
        if not loads("libcuda.so.1"):
            missing.append("no NVIDIA driver (libcuda.so.1): install one, or start the container with --gpus all")
        toolkit = (f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10")
        if absent := [name for name in toolkit if not loads(name)]:
            others = [other for other in range(11, 20) if other != major and loads(f"libcudart.so.{other}")]
            found = f"CUDA {others[-1]} instead of CUDA {major}" if others else f"no CUDA {major}"
            missing.append(f"{found} ({', '.join(absent)}): {_INSTALL}")
        if not loads("libcudnn.so.9"):  # loaded by onnxruntime at the first convolution, long after start-up
            missing.append(f"no cuDNN 9 (libcudnn.so.9): {_INSTALL}")
        return missing

    def providers(self, graph: Graph, gpu: int, settings: Settings) -> list[Provider]:
        """Return the providers for GPU number ``gpu``, the best first. Raises DeviceUnavailable."""
        return [provider(gpu, settings)]

    def _session(self, graph: Graph, gpu: int, settings: Settings) -> OnnxSession:
        options, providers = session_options(settings.threads), self.providers(graph, gpu, settings)
        if settings.cuda_graphs:
            return self.tried_out(CudaGraphs(graph.file, providers, options, settings.batch_sizes, "cuda", gpu))
        return self.tried_out(OnnxSession(graph.file, providers, options))


def provider(gpu: int, settings: Settings) -> Provider:
    """Return ONNX Runtime's provider for GPU number ``gpu``, and its options."""
    options = {
        "device_id": str(gpu),
        # Kernels are chosen by cuDNN's rules, in no time. EXHAUSTIVE would try all of them, again for each batch size.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Tensor cores take channels last.
        "prefer_nhwc": "1",
        "use_tf32": str(int(settings.tf32)),
        "enable_cuda_graph": str(int(settings.cuda_graphs)),
        # Memory grows by what is asked for, not to the next power of two: no batch comes that warm-up has not run.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if settings.gpu_memory_limit_mb is not None:
        options["gpu_mem_limit"] = str(settings.gpu_memory_limit_mb * 1_000_000)
    return "CUDAExecutionProvider", options


def _major() -> int:
    """Return the major version of CUDA that this onnxruntime was built for."""
    if not ort.cuda_version:
        raise DeviceUnavailable(f"this onnxruntime is built without CUDA: {_INSTALL} in place of service.txt")
    return int(ort.cuda_version.split(".")[0])


def loads(library: str) -> bool:
    """Return whether the dynamic linker finds this library and all that it needs."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _runtime() -> ctypes.CDLL:
    return ctypes.CDLL(f"libcudart.so.{_major()}")


def _call(function: str, *arguments: object) -> None:
    """Call the CUDA runtime. Raises DeviceUnavailable with CUDA's own words."""
    runtime = _runtime()
    runtime.cudaGetErrorString.restype = ctypes.c_char_p
    if code := runtime[function](*arguments):
        cure = _CURES.get(code, "").format(major=_major())
        raise DeviceUnavailable(f"{function}: {runtime.cudaGetErrorString(code).decode()} (CUDA error {code}) {cure}")
