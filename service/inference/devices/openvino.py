"""OpenVINO, for CPUs that it knows: a plugin that a stock onnxruntime loads, from a package of its own."""

import functools
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime as ort
from typing_extensions import override

from service.errors import DeviceUnavailable
from service.inference.devices.cpu import Cpu
from service.inference.devices.device import Graph
from service.inference.session import OnnxSession, session_options
from service.settings import Settings

PROVIDER = "OpenVINOExecutionProvider"
_PACKAGE = "onnxruntime-ep-openvino"
_MISSING = f"no {_PACKAGE}: install requirements/service.txt, on Linux and x86-64"


class OpenVino(Cpu):
    """CPUs that OpenVINO knows. No export measures how well bf16 agrees, so bf16 must be asked for."""

    kernels_by_size = True

    @override
    def check(self, settings: Settings) -> str:
        # Whether the plugin knows this CPU shows when the first session is made. Loading the plugin takes time and
        # memory, which are wasted where an earlier start found that the model runs faster without it.
        try:
            return version(_PACKAGE)
        except PackageNotFoundError as error:
            raise DeviceUnavailable(_MISSING) from error

    @override
    def sessions(self, graph: Graph, settings: Settings) -> tuple[OnnxSession, ...]:
        told = provider_options(settings.threads, graph.precision, settings.cache_folder("openvino"))
        return (self.tried_out(session(graph.file, settings.threads, told)),)


def supported_cpu() -> ort.OrtEpDevice:
    """Return the CPU as OpenVINO lists it. Raises DeviceUnavailable, with the cause and its cure."""
    try:
        devices = _devices()
    except ImportError as error:
        raise DeviceUnavailable(_MISSING) from error
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise DeviceUnavailable(f"OpenVINO's plugin can't be loaded: {error}") from error
    for device in devices:
        if device.ep_name == PROVIDER and device.ep_metadata["ov_device"] == "CPU":
            return device
    raise DeviceUnavailable("OpenVINO does not support this CPU: it takes Intel's")


def provider_options(threads: int, precision: str, cache: Path | None) -> dict[str, str]:
    """Return the provider's options for one batch at a time on ``threads`` threads.

    OpenVINO would pick bfloat16 by itself where it deems that faster. Here it computes the float32 parts of a graph in
    bfloat16 only for ``precision="bf16"``. The folder ``cache`` keeps what it compiles for the next start.
    """
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # Decoders use the cores, too. A pinned thread would wait for its core while another core is free.
        "ENABLE_CPU_PINNING": "NO",
    }
    if cache is not None:
        config["CACHE_DIR"] = str(cache)
    return {"load_config": json.dumps({"CPU": config})}


def session(file: Path, threads: int, told: dict[str, str]) -> OnnxSession:
    """Return a session with the provider's options ``told``. Raises DeviceUnavailable or InvalidManifest."""
    options = session_options(threads)
    options.add_provider_for_devices([supported_cpu()], told)
    return OnnxSession(file, [(PROVIDER, told)], options)


@functools.cache
def _devices() -> list[ort.OrtEpDevice]:
    """Load the plugin, once in a process, and return all devices that onnxruntime then knows."""
    import onnxruntime_ep_openvino  # not made for every kind of machine

    ort.register_execution_provider_library(PROVIDER, onnxruntime_ep_openvino.get_library_path())
    devices: list[ort.OrtEpDevice] = ort.get_ep_devices()
    return devices
