"""What CUDA needs of this machine, what of it is missing, and memory that a GPU can fetch from.

onnxruntime only logs which library it could not load, and carries on without a GPU. So each that its providers are
linked with is tried here first, and a missing one is an error that says what to install.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import weakref
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import DeviceUnavailable

_INSTALL = "install requirements/service-gpu.txt"
_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU
_CURES = {
    35: "install an NVIDIA driver for CUDA {major} (580 or newer for 13)",  # cudaErrorInsufficientDriver
    100: "see that nvidia-smi lists a GPU and CUDA_VISIBLE_DEVICES hides none of them",  # cudaErrorNoDevice
}


def check(device_ids: Sequence[int], *, tensorrt: bool = False) -> None:
    """Raise DeviceUnavailable, with each cause and its cure, unless onnxruntime can use these GPUs."""
    major = _major()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses, and misses what it does not need
        ort.preload_dlls()
    missing = []
    if not _loads("libcuda.so.1"):
        missing.append("no NVIDIA driver (libcuda.so.1): install one, or start the container with --gpus all")
    toolkit = (f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10")
    if absent := [name for name in toolkit if not _loads(name)]:
        others = [other for other in range(11, 20) if other != major and _loads(f"libcudart.so.{other}")]
        found = f"CUDA {others[-1]} instead of CUDA {major}" if others else f"no CUDA {major}"
        missing.append(f"{found} ({', '.join(absent)}): {_INSTALL}")
    if not _loads("libcudnn.so.9"):  # loaded by onnxruntime at the first convolution, long after start-up
        missing.append(f"no cuDNN 9 (libcudnn.so.9): {_INSTALL}")
    if tensorrt and (absent := [name for name in _TENSORRT if not _loads(name)]):
        missing.append(f"no TensorRT 10 ({', '.join(absent)}): install it, and name its folder in LD_LIBRARY_PATH")
    if missing:
        raise DeviceUnavailable("; ".join(missing))
    count = ctypes.c_int()
    _call("cudaGetDeviceCount", ctypes.byref(count))
    if beyond := [number for number in device_ids if number >= count.value]:
        raise DeviceUnavailable(f"device_ids has GPU {beyond[0]}, but there are {count.value}, counted from 0")
    _call("cudaSetDevice", ctypes.c_int(device_ids[0]))  # for this thread: or pinning would take memory of GPU 0


def pin(memory: NDArray[Any]) -> None:
    """Lock ``memory`` into RAM for as long as it lives, so that a GPU fetches it without the CPU copying it first.

    Raises DeviceUnavailable when CUDA refuses.
    """
    address = ctypes.c_void_p(memory.ctypes.data)
    _call("cudaHostRegister", address, ctypes.c_size_t(memory.nbytes), ctypes.c_uint(_PORTABLE))
    weakref.finalize(memory, _runtime().cudaHostUnregister, address)


def _major() -> int:
    """Return the major version of CUDA that this onnxruntime was built for."""
    if not ort.cuda_version:
        raise DeviceUnavailable(f"this onnxruntime is built without CUDA: {_INSTALL} in place of service.txt")
    return int(ort.cuda_version.split(".")[0])


def _loads(library: str) -> bool:
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
