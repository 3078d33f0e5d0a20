"""The errors for machines that lack something that CUDA needs. The libraries are faked, present or missing.

``make test-gpu-wheel`` tests onnxruntime's real CUDA build: its own errors are no better, and these checks find what is
missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from service.errors import DeviceUnavailable
from service.inference.devices import DEVICES
from service.settings import Settings

DRIVER = {"libcuda.so.1"}
TOOLKIT = {"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"}
CUDNN = {"libcudnn.so.9"}


class Runtime:
    """A CUDA runtime whose calls return ``code``, on a machine with ``gpus``."""

    def __init__(self, code: int = 0, gpus: int = 1) -> None:
        self.code, self.gpus = code, gpus
        self.pinned: dict[int, int] = {}
        self.cudaGetErrorString = lambda _: b"what CUDA says"  # takes a restype, like ctypes' functions

    def __getitem__(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self, name)
        return function

    def cudaGetDeviceCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return self.code

    def cudaSetDevice(self, number: ctypes.c_int) -> int:  # noqa: N802
        return self.code

    def cudaHostRegister(self, address: ctypes.c_void_p, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802
        assert address.value is not None
        self.pinned[address.value] = size.value
        return self.code

    def cudaHostUnregister(self, address: ctypes.c_void_p) -> int:  # noqa: N802
        assert address.value is not None
        del self.pinned[address.value]
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runtime]:
    """A function that fakes a machine with these libraries and with onnxruntime's build for CUDA 13."""

    def make(libraries: set[str], **runtime: int) -> Runtime:
        found = Runtime(**runtime)

        def load(name: str) -> Runtime:
            if name not in libraries:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")
            return found

        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(ort, "cuda_version", "13.0")
        monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load what is not needed"))  # noqa: T201
        return found

    return make


@pytest.mark.parametrize(
    ("libraries", "told"),
    [
        (TOOLKIT | CUDNN, r"^no NVIDIA driver \(libcuda.so.1\): install one.*--gpus all$"),
        (DRIVER | CUDNN, r"^no CUDA 13 \(libcudart.so.13.*libcurand.so.10\): install requirements/service-gpu.txt$"),
        (DRIVER | CUDNN | {"libcudart.so.12"}, r"^CUDA 12 instead of CUDA 13 \(libcudart.so.13"),
        (DRIVER | CUDNN | TOOLKIT - {"libcublasLt.so.13"}, r"^no CUDA 13 \(libcublasLt.so.13\)"),
        (DRIVER | TOOLKIT, r"^no cuDNN 9 \(libcudnn.so.9\): install requirements/service-gpu.txt$"),
        (set(), "no NVIDIA driver .*; no CUDA 13 .*; no cuDNN 9"),
    ],
)
def test_each_missing_piece_is_named_with_its_cure(
    machine: Callable[..., Runtime], libraries: set[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(libraries)
    with pytest.raises(DeviceUnavailable, match=told):
        DEVICES["cuda"].check(Settings(device="cuda"))
    assert capsys.readouterr().out == ""


def test_tensorrt_needs_its_own_library(machine: Callable[..., Runtime]) -> None:
    machine(DRIVER | TOOLKIT | CUDNN)
    DEVICES["cuda"].check(Settings(device="cuda"))
    with pytest.raises(DeviceUnavailable, match=r"^no TensorRT 10 \(libnvinfer.so.10, libnvonnxparser.so.10\)"):
        DEVICES["tensorrt"].check(Settings(device="tensorrt"))


@pytest.mark.parametrize(("code", "told"), [(35, "580 or newer"), (100, "nvidia-smi"), (999, "error 999")])
def test_what_cuda_itself_refuses_is_told_in_its_words(machine: Callable[..., Runtime], code: int, told: str) -> None:
    machine(DRIVER | TOOLKIT | CUDNN, code=code)
    with pytest.raises(DeviceUnavailable, match=f"what CUDA says.*{told}"):
        DEVICES["cuda"].check(Settings(device="cuda"))


def test_a_gpu_that_is_not_there(machine: Callable[..., Runtime]) -> None:
    machine(DRIVER | TOOLKIT | CUDNN, gpus=2)
    DEVICES["cuda"].check(Settings(device="cuda", device_ids="0,1"))
    with pytest.raises(DeviceUnavailable, match="device_ids has GPU 2, but there are 2"):
        DEVICES["cuda"].check(Settings(device="cuda", device_ids="0,2"))


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "cuda_version", "")
    with pytest.raises(DeviceUnavailable, match=r"requirements/service-gpu.txt in place of service.txt"):
        DEVICES["cuda"].check(Settings(device="cuda"))


def test_memory_is_pinned_as_long_as_it_lives(machine: Callable[..., Runtime]) -> None:
    runtime = machine(TOOLKIT)
    memory = np.zeros(100, np.uint8)
    DEVICES["cuda"].pin(memory)
    assert runtime.pinned == {memory.ctypes.data: 100}
    row = memory[10:]
    del memory
    assert len(runtime.pinned) == 1
    del row
    assert runtime.pinned == {}


def test_memory_that_cuda_does_not_pin_is_an_error(machine: Callable[..., Runtime]) -> None:
    machine(TOOLKIT, code=2)
    with pytest.raises(DeviceUnavailable, match="cudaHostRegister: what CUDA says"):
        DEVICES["cuda"].pin(np.zeros(100, np.uint8))
