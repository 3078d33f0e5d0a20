"""The limits of a card, measured with torch's own kernels: arithmetic, memory, copies from the host, launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bench.gpu.setup import Device


def tflops(precision: str, device: Device) -> float:
    """Return the speed of a large matrix product in fp16, fp32 or tf32, in 10^12 floating-point operations a second."""
    side = 8192 if device == "cuda" else 256
    kind = torch.float16 if precision == "fp16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return 2 * side**3 / _seconds(lambda: a @ b, device) / 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def copy_tb_per_s(device: Device) -> float:
    """Return the bandwidth of the device's memory in TB/s, read and written bytes together, from copying 4 GB."""
    source = torch.randn(2**30 if device == "cuda" else 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device) / 1e12


def from_host_gb_per_s(device: Device, *, pinned: bool) -> float:
    """Return the bandwidth in GB/s of copying 32 images to the device, from pinned or from pageable memory."""
    batch = torch.randint(0, 255, (32, 299, 299, 3), dtype=torch.uint8)
    source = batch.pin_memory() if pinned and device == "cuda" else batch
    target = torch.empty_like(batch, device=device)
    return batch.nbytes / _seconds(lambda: target.copy_(source, non_blocking=pinned), device) / 1e9


def launch_us(device: Device) -> float:
    """Return the microseconds of launching one small kernel. A batch launches more than a hundred kernels."""
    small = torch.zeros(1, device=device)
    return _seconds(lambda: small.add_(1), device, calls=1000) * 1e6


def _seconds(run: Callable[[], object], device: Device, calls: int = 10) -> float:
    """Return the seconds of one call when calls queue up: the median of five rounds, after one round to warm up."""
    rounds = []
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        rounds.append((time.perf_counter() - start) / calls)
    return statistics.median(rounds[1:])
