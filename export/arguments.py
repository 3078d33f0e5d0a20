"""The arguments of ``python -m export``. Reading them takes moments and does not need torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of ``python -m export``. Prints the usage and exits with code 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export PyTorch weights for the service.",
        epilog="python -m export evaluate --help: measure the accuracy of an exported model.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="xception or inception_v4 (default: both, unless already there)")
    add(
        "--weights",
        default="imagenet",
        help="imagenet, kitchenware (for xception), untrained, the path of a weights file, or OWNER/NAME@REVISION for "
        "model.safetensors on the Hugging Face hub (default: %(default)s)",
    )
    add("--labels", type=Path, metavar="FILE", help="text file that names the classes, one per line, in UTF-8")
    add(
        "--precision",
        nargs="+",
        choices=["fp32", "fp16", "int8"],
        default=["fp32"],
        help="fp32 is always exported; int8 adds a variant for CPUs, fp16 adds a variant for GPUs",
    )
    add("--calibration-dir", type=Path, metavar="DIR", help="further JPEG or PNG photos that calibrate int8")
    add("--if-agrees", action="store_true", help="leave out a variant that differs too much, instead of failing")
    add("--out", type=Path, default=Path("model_repository"), metavar="DIR", help="repository (default: %(default)s)")
    add("--name", type=_name, help="name of the model in the service (default: MODEL)")
    add("--version", type=_version, default=1, help="version, a positive integer (default: %(default)s)")
    add("--if-missing", action="store_true", help="do nothing if the repository already has the version")
    add("--fallback-untrained", action="store_true", help="export random weights if --weights can't be downloaded")
    args = parser.parse_args(argv)
    if args.model is None and args != parser.parse_args(["--out", str(args.out)]):
        parser.error("without MODEL there is only --out")
    return args


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} must start with a letter or digit and contain only letters, digits, '.', '_' and '-'"
        )
    return text


def _version(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)
