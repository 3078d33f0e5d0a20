"""Read the state dict of a .safetensors, .pth or .pt file, and check that a network can use it."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth or .pt file by their keys. No code of a pickle runs.

    Raises ValueError for a file that is damaged or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is not a file of tensors only, and a pickle that may run code is not loaded"
        ) from error
    except Exception as error:  # torch's reader raises whatever a damaged file makes it meet
        raise ValueError(f"{path.name} cannot be read, it may be truncated: {error}") from error
    is_state = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not is_state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name} is not a state dict; save model.state_dict() alone, without optimizer or epoch")
    return dict(state)


def check_keys(state: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    """Raise ValueError with the first keys that do not fit. Torch's own message would list hundreds of keys."""
    expected = model.state_dict()
    # Old files lack BatchNorm's batch counter, num_batches_tracked. Torch fills it in.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    common = [(key, value, expected[key]) for key, value in state.items() if key in expected]
    misshaped = [
        f"{key} {list(value.shape)} instead of {list(target.shape)}"
        for key, value, target in common
        if value.shape != target.shape
    ]
    mistyped = [
        f"{key} {value.dtype} instead of {target.dtype}"
        for key, value, target in common
        if value.is_floating_point() != target.is_floating_point()
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped, "of another type": mistyped}
    problems = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in found.items() if keys]
    if problems:
        raise ValueError(f"{path.name} does not fit {type(model).__name__}: {'; '.join(problems)}")


def check_values(model: nn.Module, path: Path) -> None:
    """Raise ValueError for a weight that is NaN or infinite: every answer would be NaN."""
    for key, value in model.state_dict().items():
        if bad := int((~value.isfinite()).sum()):
            raise ValueError(f"{path.name} holds {bad} values in {key} that are NaN or too large for float32")
