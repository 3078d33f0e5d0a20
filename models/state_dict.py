"""Read the state dict of a checkpoint or a weights file, and check that a network can use it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# Where training scripts put the weights in a checkpoint, best first. Averaged weights are the ones to serve, and timm
# takes them first too.
ENTRIES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "net")


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a safetensors or torch file by their keys, and the entry of the file that holds them.

    The entry is "" for a file of tensors alone, and a name of ``ENTRIES`` for a checkpoint, such as "state_dict_ema" or
    "model.state_dict". The names of wrappers, such as "module." of DistributedDataParallel, are cut off the keys. No
    code of a pickle runs. Raises ValueError for a damaged file, and for a file without a state dict.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_inert(path)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL |class ')([\w.]+)", str(error))
        raise ValueError(
            f"{path.name} is not a file of tensors only, and a pickle that may run code is not loaded: it holds "
            f"{culprit[1] if culprit else 'other objects'}; save model.state_dict() alone"
        ) from error
    except Exception as error:  # torch's reader raises whatever a damaged file makes it meet
        raise ValueError(f"{path.name} cannot be read, it may be truncated: {error}") from error
    for entry, state in _state_dicts(content):
        return _without_wrappers(state), entry
    raise ValueError(f"{path.name} holds no state dict but {_describe(content)}; save model.state_dict() alone")


def _load_inert(path: Path) -> Any:
    """Load a torch file, with an inert object for whatever is no tensor and no plain value.

    Checkpoints hold the script's arguments, NumPy's numbers and the like. Their classes are neither imported nor run.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format before torch 1.6
        names = []
    with safe_globals([(type(name, (_Inert,), {"__module__": "builtins"}), name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


class _Inert:
    """Stands for an object of another class, and forgets its content."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...


def _state_dicts(content: Any, depth: int = 2) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in ``content`` and in its entries, best first, each with the way to it."""
    if not isinstance(content, dict):
        return
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield "", content
    for entry in ENTRIES if depth else ():
        for inner, state in _state_dicts(content.get(entry), depth - 1):
            yield f"{entry}.{inner}".rstrip("."), state


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut off what all keys start with: "module.", "_orig_mod.", "model.". No network keeps all in one submodule."""
    state = {key: value for key, value in state.items() if key != "n_averaged"}  # the counter of torch's AveragedModel
    while len({key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def _describe(content: Any) -> str:
    kind = type(content).__name__
    if not isinstance(content, dict):
        return f"a {kind}"
    entries = [f"{key} ({type(value).__name__})" for key, value in content.items()]
    return f"a {kind} of {', '.join(entries[:6])}{', ...' if entries[6:] else ''}" if entries else f"an empty {kind}"


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
