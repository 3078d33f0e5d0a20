"""The catalogue of networks as a table, for people."""

from __future__ import annotations

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from models import NETWORKS, find_spec
from models.download import is_cached
from models.spec import ModelSpec


def print_catalogue() -> None:
    """Print each network with its parameters and its published weights, and tell which weights are cached."""
    table = Table("network", box=box.SIMPLE_HEAD)
    table.add_column("parameters", justify="right")
    table.add_column("--weights")
    table.add_column("pixels", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("cached")
    for name in NETWORKS:
        spec = find_spec(name)
        rows = _weights(spec)
        for index, row in enumerate(rows):
            table.add_row(*((name, f"{_parameters(spec):,}") if index == 0 else ("", "")), *row)
    Console().print(table)


def _parameters(spec: ModelSpec) -> int:
    with torch.device("meta"):  # costs neither memory nor random numbers
        return sum(parameter.numel() for parameter in spec.build().parameters())


def _weights(spec: ModelSpec) -> list[tuple[str, str, str, str]]:
    published = [
        (
            name,
            str(weights.preprocessing.input_size),
            f"{1000 if weights.labels is None else len(weights.labels):,}",
            "yes" if is_cached(weights.source) else "no",
        )
        for name, weights in spec.weights.items()
    ]
    return [*published, ("untrained", str(spec.preprocessing.input_size), "1,000", "-")]
