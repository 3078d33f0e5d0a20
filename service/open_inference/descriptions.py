"""What the server says of itself, its models and its statistics, in the protocol's words."""

import re
from typing import Any

from service.classifier import Classifier
from service.errors import InvalidParameter, ServiceError, without_folders
from service.inference.traffic import Label
from service.open_inference.tensors import INPUT, OUTPUT
from service.registry import Registry
from service.runtime import Runtime
from service.settings import Settings
from service.statistics import Duration

VERSION = "0.1.0"  # of pyproject.toml, which the images do not hold
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]
_NUMBER = re.compile("0*[1-9][0-9]{0,17}", re.ASCII)


def number(version: str | None) -> int | Label | None:
    """Return a version's number or label, or None where none is named. Raises InvalidParameter."""
    match version:
        case None | "":
            return None
        case "stable" | "canary":
            return version
        case _ if _NUMBER.fullmatch(version):
            return int(version)
    raise InvalidParameter(f"a version is a positive whole number, stable or canary, not {version!r:.50}")


def unready(registry: Registry, name: str, version: str | None) -> str | None:
    """Return why a model does not answer, or None if it does."""
    try:
        reason = registry.find(name, number(version)).unready
    except ServiceError as error:
        reason = str(error)
    return None if reason is None else without_folders(reason)


def server() -> dict[str, Any]:
    """Describe the server."""
    return {"name": "inferception", "version": VERSION, "extensions": EXTENSIONS}


def metadata(classifier: Classifier, registry: Registry) -> dict[str, Any]:
    """Describe a model's tensors. Shapes have the batch's dimension, -1."""
    size, manifest = classifier.manifest.input, classifier.manifest
    versions = [one.version for one in registry if one.name == classifier.name]
    return {
        "name": classifier.name,
        "versions": [str(version) for version in sorted(versions)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size.height, size.width, 3]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(classifier.labels)]}],
        "properties": {
            "trained": str(manifest.trained).lower(),
            "precision": classifier.placement.precision,
            "provider": classifier.placement.provider,
        },
    }


def configuration(classifier: Classifier, settings: Settings) -> dict[str, Any]:
    """Describe how a model is run. ``max_batch_size`` is what one request may hold."""
    size, placement = classifier.manifest.input, classifier.placement
    return {
        "name": classifier.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": most_images(settings),
        "input": [
            {
                "name": INPUT,
                "data_type": "TYPE_UINT8",
                "format": "FORMAT_NHWC",
                "dims": [size.height, size.width, 3],
                "optional": False,
            }
        ],
        "output": [
            {
                "name": OUTPUT,
                "data_type": "TYPE_FP32",
                "dims": [len(classifier.labels)],
                "label_filename": classifier.manifest.labels.file,
            }
        ],
        "instance_group": [
            {
                "name": f"{classifier.name}_0",
                "kind": "KIND_GPU" if placement.device in ("cuda", "tensorrt") else "KIND_CPU",
                "count": len(placement.sessions),
            }
        ],
        "dynamic_batching": {
            "preferred_batch_size": settings.batch_sizes,
            "max_queue_delay_microseconds": 0,
            "priority_levels": 3,
            "default_priority_level": 2,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": settings.default_timeout_ms * 1000,
                "allow_timeout_override": True,
                "max_queue_size": settings.max_queue_size,
            },
        },
        "response_cache": {"enable": settings.cache_bytes > 0},
        "parameters": {"weights": {"string_value": classifier.manifest.weights.source}},
    }


def most_images(settings: Settings) -> int:
    """Return how many images one request may hold: as many as a form may have files, if the queue takes them."""
    return min(settings.max_files, settings.max_queue_size)


def statistics(classifier: Classifier) -> dict[str, Any]:
    """Return what a version has done since it was loaded."""
    done = classifier.statistics
    never = _duration(Duration())
    return {
        "name": classifier.name,
        "version": str(classifier.version),
        "last_inference": done.last_ms,
        "inference_count": done.images,
        "execution_count": sum(batches.compute_infer.count for batches in done.batches.values()),
        "inference_stats": {
            "success": _duration(done.success),
            "fail": _duration(done.fail),
            "queue": _duration(done.queue),
            "compute_input": _duration(done.compute_input),
            "compute_infer": _duration(done.compute_infer),
            "compute_output": _duration(done.compute_output),
            "cache_hit": _duration(done.cache_hit),
            "cache_miss": _duration(done.cache_miss),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(batches.compute_input),
                "compute_infer": _duration(batches.compute_infer),
                "compute_output": never,
            }
            for size, batches in sorted(done.batches.items())
        ],
        "memory_usage": [],
    }


async def repository_index(runtime: Runtime, *, only_ready: bool) -> list[dict[str, str]]:
    """List every version in the repository, with its state, or those that are ready."""
    registry, unloaded = runtime.registry, await runtime.control.unloaded()
    served = {(one.name, one.version): one.unready for one in registry}
    reasons = {**registry.failures, **served, **dict.fromkeys(unloaded, "unloaded")}
    return [
        {
            "name": name,
            "version": str(version),
            "state": "READY" if reason is None else "UNAVAILABLE",
            "reason": without_folders(reason or ""),
        }
        for (name, version), reason in reasons.items()
        if reason is None or not only_ready
    ]


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
