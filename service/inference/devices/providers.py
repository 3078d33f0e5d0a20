"""What each device is to onnxruntime: its execution providers and their options."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from service.errors import DeviceUnavailable
from service.inference.devices import openvino
from service.settings import Settings

Device = Literal["cpu", "openvino", "cuda", "tensorrt"]
Provider = tuple[str, dict[str, str]]

CPU: Sequence[Provider] = [("CPUExecutionProvider", {})]
GPUS: Collection[Device] = ("cuda", "tensorrt")


def execution_providers(
    device: Device, device_id: int, settings: Settings, *, precision: str, height: int, width: int, streams: int = 1
) -> Sequence[Provider]:
    """Return the providers that may run a model's nodes, best first, for sessions on GPU ``device_id``.

    ``precision`` is what the model computes in, ``height`` and ``width`` are its images'. The CPU has so many
    ``streams``.
    """
    if device == "cpu":
        return CPU
    if device == "openvino":
        cache = settings.cache_folder("openvino")
        told = openvino.options(settings.threads, streams, precision, cache)
        return [(openvino.PROVIDER, told)]
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
    cache = settings.cache_folder("tensorrt")
    if cache is None:
        raise DeviceUnavailable(f"TensorRT keeps its engines in {settings.cache}, which can't be written to")
    images = f"images:{{}}x{height}x{width}x3"
    tensorrt = {
        "device_id": str(device_id),
        "trt_fp16_enable": str(precision == "fp16"),
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
