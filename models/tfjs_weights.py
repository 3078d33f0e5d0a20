"""Read a Keras network for TensorFlow.js that a package wraps into JavaScript, as nsfwjs 4 does.

The files of a network are model.min.js and group1-shard1of6.min.js and so on. Each assigns one value to ``exports``: a
JavaScript literal with the layers and a list of weights, or a part of the weights' bytes in base64. No JavaScript runs.
"""

from __future__ import annotations

import base64
import json
import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What a JavaScript literal writes unlike JSON: keys without quotes, booleans, and numbers without a leading zero.
_UNLIKE_JSON = re.compile(r'"[^"]*"|\w+(?=:)|![01]|(?<!\d)\.(?=\d)')
_IN_JSON = {"!0": "true", "!1": "false", ".": "0."}


def read_layers(archive: Path, folder: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the layers with weights, each a name and its float32 arrays, in Keras' order.

    ``archive`` is a gzipped tar archive, and ``folder`` is the network's folder in it. Raises ValueError for an archive
    of another form.
    """
    try:
        with tarfile.open(archive) as package:
            model = _literal(_read(package, f"{folder}/model.min.js"))
            (group,) = model["weightsManifest"]
            content = b"".join(_bytes(_read(package, f"{folder}/{path}.min.js")) for path in group["paths"])
        layers: dict[str, list[np.ndarray]] = {}
        for name, array in _arrays(group["weights"], content):
            layers.setdefault(name.rpartition("/")[0], []).append(array)
        order = [layer["config"]["name"] for layer in model["modelTopology"]["model_config"]["config"]["layers"]]
    except (tarfile.TarError, LookupError, ValueError, OSError) as error:
        raise ValueError(f"{archive.name} holds no network in {folder}: {error}") from error
    yield from ((name, layers[name]) for name in order if name in layers)


def _read(package: tarfile.TarFile, name: str) -> str:
    file = package.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read().decode()


def _literal(script: str) -> dict[str, Any]:
    """Return the object that the script assigns. Its strings hold no backslash."""
    start = script.index(".exports={") + len(".exports=")

    def in_json(found: re.Match[str]) -> str:
        text = found[0]
        return text if text.startswith('"') else _IN_JSON.get(text, f'"{text}"')

    value: dict[str, Any] = json.JSONDecoder().raw_decode(_UNLIKE_JSON.sub(in_json, script[start:]))[0]
    return value


def _bytes(script: str) -> bytes:
    (text,) = re.findall(r'\.exports="([A-Za-z0-9+/=]+)"', script)
    return base64.b64decode(text)


def _arrays(weights: list[dict[str, Any]], content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each weight's name and values, which lie in order, one byte a value: ``byte * scale + min``."""
    ends = np.cumsum([math.prod(weight["shape"]) for weight in weights])
    *parts, rest = np.split(np.frombuffer(content, np.uint8), ends)
    if len(rest):
        raise ValueError(f"{len(rest)} bytes belong to no weight")
    for weight, values in zip(weights, parts, strict=True):
        quantization = weight["quantization"]
        array = values.reshape(weight["shape"]) * quantization["scale"] + quantization["min"]
        yield weight["name"], array.astype(np.float32)
