"""OpenVINO, for CPUs that it knows: a plugin that a stock onnxruntime loads, from a package of its own."""

from __future__ import annotations

import functools
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime as ort

from service.errors import DeviceUnavailable

PROVIDER = "OpenVINOExecutionProvider"
_PACKAGE = "onnxruntime-ep-openvino"
_MISSING = f"no {_PACKAGE}: install requirements/service.txt, on Linux and x86-64"


def cpu() -> ort.OrtEpDevice:
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


def options(threads: int, streams: int, precision: str, cache: Path | None) -> dict[str, str]:
    """Return the provider's options for ``streams`` batches at a time that share ``threads`` threads.

    OpenVINO would pick bfloat16 by itself where it deems that faster; here the float32 parts of a graph are computed in
    it only for ``precision="bf16"``. What it compiles is kept in the folder ``cache`` for the next start.
    """
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(streams),
        # Decoders use the cores, too: pinned, a thread would wait for one while another core is free.
        "ENABLE_CPU_PINNING": "NO",
    }
    if cache is not None:
        config["CACHE_DIR"] = str(cache)
    return {"load_config": json.dumps({"CPU": config})}


def installed_version() -> str:
    """Return the version of the plugin's package. Raises DeviceUnavailable where there is none."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError as error:
        raise DeviceUnavailable(_MISSING) from error


@functools.cache
def _devices() -> list[ort.OrtEpDevice]:
    """Return all devices that onnxruntime knows, with the plugin loaded, which a process does once."""
    import onnxruntime_ep_openvino  # not made for every kind of machine

    ort.register_execution_provider_library(PROVIDER, onnxruntime_ep_openvino.get_library_path())
    devices: list[ort.OrtEpDevice] = ort.get_ep_devices()
    return devices
