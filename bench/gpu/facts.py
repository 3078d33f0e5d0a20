"""Facts about the machine and its card, and the card's limits, with which rates are compared."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess

import numpy as np
import torch

from bench.gpu import ceilings
from bench.gpu.record import Record
from bench.gpu.setup import Setup
from service.errors import DeviceUnavailable
from service.inference.devices import DEVICES

PACKAGES = (
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "torchvision",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "numpy",
    "pillow",
)
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit,compute_mode,pstate"


def measure(setup: Setup, record: Record) -> None:
    """Record the installed packages, the card's own description, and the card's limits."""
    record.put(platform.python_version(), "python")
    record.put({name: version for name in PACKAGES if (version := _version(name))}, "packages")
    if setup.on_gpu:
        record.put(_nvidia_smi(), "nvidia_smi")
        card = torch.cuda.get_device_properties(0)
        record.put({"multiprocessors": card.multi_processor_count, "l2_mb": card.L2_cache_size / 1e6}, "card")
        record.put(_pin_neighbours(), "pinning_two_arrays_that_share_a_page")
    for precision in ("fp16", "fp32", "tf32"):
        record.put(ceilings.tflops(precision, setup.device), "tflops", precision)
    record.put(ceilings.copy_tb_per_s(setup.device), "copy_tb_per_s")
    record.put(ceilings.from_host_gb_per_s(setup.device, pinned=True), "from_host_gb_per_s", "pinned")
    record.put(ceilings.from_host_gb_per_s(setup.device, pinned=False), "from_host_gb_per_s", "pageable")
    record.put(ceilings.launch_us(setup.device), "launch_us")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def _pin_neighbours() -> str:
    """Say whether CUDA pins an array whose first page is already pinned with another array."""
    memory = np.zeros(2 * 268203, np.uint8)
    first, second = memory[:268203], memory[268203:]  # they stay pinned as long as these names live
    try:
        DEVICES["cuda"].pin(first)
        DEVICES["cuda"].pin(second)
    except DeviceUnavailable as error:
        return str(error)
    return "works"
