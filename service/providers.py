"""What each device is to onnxruntime: its execution providers and their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from service.errors import DeviceUnavailable
from service.settings import Settings

Device = Literal["cpu", "cuda", "tensorrt"]
Provider = tuple[str, dict[str, str]]

CPU: Sequence[Provider] = [("CPUExecutionProvider", {})]
_TENSORRT_CACHE = Path("~/.cache/inferception/tensorrt")


def execution_providers(
    device: Device, device_id: int, settings: Settings, *, half: bool, height: int, width: int
) -> Sequence[Provider]:
    """Return the providers that may run a model's nodes, best first, for sessions on GPU ``device_id``.

    ``half`` says that the graph computes in float16, ``height`` and ``width`` are its images'.
    """
    if device == "cpu":
        return CPU
    cuda = {
        "device_id": str(device_id),
        # Kernels are chosen by cuDNN's rules, in no time. EXHAUSTIVE would try all of them, again for each batch size.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Tensor cores take channels last.
        "prefer_nhwc": "1",
        "use_tf32": str(int(settings.tf32)),
        "enable_cuda_graph": str(int(settings.cuda_graphs)),
        # Grow by what is asked for, not to the next power of two: the batch sizes that are warmed up are all there is.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if settings.gpu_memory_limit_mb is not None:
        cuda["gpu_mem_limit"] = str(settings.gpu_memory_limit_mb * 1_000_000)
    if device == "cuda":
        return [("CUDAExecutionProvider", cuda)]
    cache = _TENSORRT_CACHE.expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceUnavailable(f"TensorRT keeps its engines in {cache}: {error.strerror}") from error
    images = f"images:{{}}x{height}x{width}x3"
    tensorrt = {
        "device_id": str(device_id),
        "trt_fp16_enable": str(half),
        # One engine for all batch sizes, instead of a new one for each that comes.
        "trt_profile_min_shapes": images.format(1),
        "trt_profile_opt_shapes": images.format(settings.max_batch_size),
        "trt_profile_max_shapes": images.format(settings.max_batch_size),
        # Building takes minutes: the next start finds the engine.
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
    }
    # What TensorRT has no layer for runs on the same GPU by CUDA.
    return [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", cuda)]
