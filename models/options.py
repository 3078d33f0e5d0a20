"""A network's options, and the smallest images that it takes."""

from __future__ import annotations

import bisect
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from models.spec import ModelSpec


def all_options(spec: ModelSpec, implied: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return every option of the network, defaults too: the defaults may change after an export.

    ``implied`` are the options that follow from the weights, and ``chosen`` are the user's. Those may be of JSON's
    types. Raises ValueError for a chosen option that the network lacks, and for a value of another type.
    """
    parameters = inspect.signature(spec.build, eval_str=True).parameters
    options = {name: parameter.default for name, parameter in parameters.items()} | dict(implied)
    for name, value in (chosen or {}).items():
        if name not in parameters or name == "num_classes":  # that number follows from the weights or the labels
            known = ", ".join(f"{key}={p.default}" for key, p in parameters.items() if key != "num_classes")
            raise ValueError(f"{spec.name} has no option {name!r}; its options are {known}")
        try:
            options[name] = TypeAdapter(parameters[name].annotation).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"option {name} of {spec.name}: {error.errors()[0]['msg']}, not {value!r}") from error
    return options


def check_size(spec: ModelSpec, options: Mapping[str, Any], size: int) -> None:
    """Raise ValueError that names the smallest side in pixels if the network can't take images of ``size``."""
    if size >= spec.preprocessing.input_size:
        return
    with torch.device("meta"):  # shapes alone, without memory and arithmetic
        model = spec.build(**options).eval()
    if not _takes(model, size):
        least = bisect.bisect_left(range(spec.preprocessing.input_size), True, key=partial(_takes, model))
        raise ValueError(f"{spec.name} takes images of at least {least} pixels a side, not {size}")


def _takes(model: nn.Module, size: int) -> bool:
    try:
        with torch.inference_mode():
            model(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, ValueError):  # torch's errors for a window that is larger than its input
        return False
    return True
