"""A network's options, and the sizes of images that it takes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from models.spec import ModelSpec


def all_options(spec: ModelSpec, implied: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return every option of the network, defaults too: the defaults may change after an export.

    ``implied`` are the options that follow from the weights, and ``chosen`` are the user's. Those may be of JSON's
    types. Raises ValueError for a chosen option that the network lacks, and for a value that the network can't be
    built with.
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
    if chosen:
        _check_build(spec, options)
    return options


def _check_build(spec: ModelSpec, options: Mapping[str, Any]) -> None:
    size = spec.preprocessing.input_size
    try:
        with torch.device("meta"), torch.inference_mode():  # shapes alone, without memory and arithmetic
            spec.build(**options).eval()(torch.empty(1, 3, size, size))
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:  # torch's, for impossible widths
        raise ValueError(f"{spec.name} can't be built with {options}: {error}") from error


def check_size(spec: ModelSpec, options: Mapping[str, Any], size: int) -> None:
    """Raise ValueError that names the next larger side in pixels if the network can't take images of ``size``.

    Small images end before the last layer. Inception-v2 also refuses sizes at which its branches round differently.
    """
    if size == spec.preprocessing.input_size:
        return
    with torch.device("meta"):  # shapes alone, without memory and arithmetic
        model = spec.build(**options).eval()
    if not _takes(model, size):
        larger = next(side for side in itertools.count(size + 1) if _takes(model, side))
        raise ValueError(
            f"{spec.name} can't take images of {size} pixels a side; the next size that it takes is {larger}"
        )


def _takes(model: nn.Module, size: int) -> bool:
    try:
        with torch.inference_mode():
            model(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, ValueError):  # torch's errors for a window that is larger than its input
        return False
    return True
