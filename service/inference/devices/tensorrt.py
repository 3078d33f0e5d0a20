"""TensorRT, on NVIDIA GPUs. It compiles a model for minutes, and then runs it faster than CUDA does."""

from typing_extensions import override

from service.errors import DeviceUnavailable
from service.inference.devices import cuda
from service.inference.devices.device import Graph
from service.inference.session import Provider
from service.settings import Settings

_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")


class TensorRt(cuda.Cuda):
    """GPUs by TensorRT, and by CUDA for what TensorRT has no layer for."""

    @override
    def missing_libraries(self) -> list[str]:
        missing = super().missing_libraries()
        if absent := [name for name in _LIBRARIES if not cuda.loads(name)]:
            missing.append(f"no TensorRT 10 ({', '.join(absent)}): install it, and name its folder in LD_LIBRARY_PATH")
        return missing

    @override
    def providers(self, graph: Graph, gpu: int, settings: Settings) -> list[Provider]:
        cache = settings.cache_folder("tensorrt")
        if cache is None:
            raise DeviceUnavailable(f"TensorRT keeps its engines in {settings.cache}, which can't be written to")
        images = f"images:{{}}x{graph.height}x{graph.width}x3"
        options = {
            "device_id": str(gpu),
            "trt_fp16_enable": str(graph.precision == "fp16"),
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
        return [("TensorrtExecutionProvider", options), *super().providers(graph, gpu, settings)]
