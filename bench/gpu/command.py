"""The command line of ``python -m bench gpu``.

This module names the parts without importing them: each part needs PyTorch, which takes seconds to import.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.gpu.record import Record
from bench.gpu.setup import Setup
from bench.report import Report, machine
from bench.repository import default_model, read_models
from service.errors import DeviceUnavailable
from service.inference.devices import DEVICES
from service.settings import Settings

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PARTS = {
    "facts": "the machine, its card, and the limits of the card",
    "prove": "whether every node is on the GPU and every class right, in each batch size, with CUDA graphs and without",
    "answers": "the error of the answers in each precision, against float64",
    "speed": "images a second by way and batch size, for onnxruntime and torch, beside the limits of the card",
    "options": "the effect of each of onnxruntime's options on the rate",
    "kernels": "the time of a batch, kernel by kernel",
    "jpeg": "photos decoded a second, by the CPU and by the GPU",
    "over_http": "the service in several settings, under requests from several processes",
}
WAYS = [
    *("service", "graphs", "resident", "service_twice", "service_thrice", "graphs_twice", "graphs_thrice"),
    *("torch", "torch_from_host", "torch_graph", "torch_compiled"),
]
QUICKER = ["service", "graphs", "resident", "torch"]
OPTIONS: dict[str, dict[str, Any]] = {
    "precisions": {"nargs": "+", "choices": ["fp16", "fp32", "tf32"], "help": "default: fp16"},
    "precision": {"choices": ["fp16", "fp32", "tf32"], "help": "default: fp16"},
    "sizes": {"nargs": "+", "type": int, "metavar": "N", "help": "batch sizes (default: 32 1 8 64)"},
    "ways": {"nargs": "+", "choices": WAYS, "metavar": "WAY", "default": QUICKER,
             "help": f"any of {', '.join(WAYS)} (default: {' '.join(QUICKER)})"},
    "seconds": {"type": float, "default": 120.0, "help": "start no measurement after so many seconds (default: 120)"},
}  # fmt: skip
TAKES = {
    "speed": ["precisions", "sizes", "ways", "seconds"],
    "options": ["precision", "sizes", "seconds"],
    "kernels": ["precision", "sizes"],
    "over_http": ["seconds"],
}


def add_parts(commands: _SubParsersAction[argparse.ArgumentParser], parents: list[argparse.ArgumentParser]) -> None:
    """Add the command ``gpu``."""
    text = "whether a GPU runs the default model right, and how fast; needs PyTorch"
    parts = commands.add_parser("gpu", help=text, description=f"{text}.").add_subparsers(
        dest="part", required=True, metavar="PART"
    )
    for name, told in PARTS.items():
        part = parts.add_parser(name, parents=parents, help=told, description=f"{told}.")
        part.set_defaults(measure=measure)
        part.add_argument("--device", choices=["cuda", "cpu"], default="cuda",
                          help="cpu rehearses in small sizes, without a GPU (default: cuda)")  # fmt: skip
        for option in TAKES.get(name, []):
            part.add_argument(f"--{option}", **OPTIONS[option])


def measure(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    """Measure one part. Raises DeviceUnavailable, which names what is missing, if no GPU can be used."""
    if arguments.device == "cuda":
        try:
            DEVICES["cuda"].check(settings)
        except DeviceUnavailable as error:
            raise DeviceUnavailable(f"no GPU: {error}") from error
    setup = Setup(default_model(read_models(settings, arguments.photos), settings), settings, arguments.device)
    defaults = {"precisions": [setup.precision], "precision": setup.precision, "sizes": setup.sizes}
    told = {option: getattr(arguments, option) for option in TAKES.get(arguments.part, [])}
    chosen = {option: defaults[option] if value is None else value for option, value in told.items()}
    record = Record(arguments.part, arguments.reports / arguments.command)
    record.report.machine = machine() | {"model": setup.model.name} | _card(setup)
    importlib.import_module(f"bench.gpu.{arguments.part}").measure(setup, record, **chosen)
    yield record.report


def _card(setup: Setup) -> dict[str, object]:
    import torch

    return {"gpu": torch.cuda.get_device_name(0) if setup.on_gpu else "none: a rehearsal on the CPU"}
