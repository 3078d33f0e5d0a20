"""The arguments of ``python -m export``. Reading them takes moments and does not need torch."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any


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
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes in UTF-8: text with one a line; .csv with names and their numbers from 0 or without "
        "numbers; .json with a list, names and numbers, or id2label",
    )
    add(
        "--photos",
        type=Path,
        metavar="DIR",
        help="your JPEG or PNG photos in a folder for each class. Up to 100 of them make the golden samples, verify "
        "every variant and calibrate int8, instead of photos of kitchenware. If nothing else names the classes, the "
        "folders do, in order",
    )
    add(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the network, such as bn_eps=0.001; repeat for more",
    )
    _add_preprocessing(parser)
    add(
        "--precision",
        nargs="+",
        choices=["fp32", "fp16", "int8"],
        default=["fp32"],
        help="fp32 is always exported; int8 adds a variant for CPUs, fp16 adds a variant for GPUs",
    )
    add("--calibration-dir", type=Path, metavar="DIR", help="further JPEG or PNG photos that calibrate int8, unsorted")
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


class _Preprocessing(argparse.Action):
    """Collects what replaces the weights' preprocessing in one dict, under the names of Preprocessing's fields."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        field = self.option_strings[0].removeprefix("--").replace("-", "_")
        value = tuple(values) if isinstance(values, list) else values
        namespace.preprocessing = {**namespace.preprocessing, field: value}


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("preprocessing", "what differs from the preprocessing of the weights")
    add = partial(group.add_argument, action=_Preprocessing, dest="preprocessing", default={})
    add("--input-size", type=_side, metavar="PIXELS", help="side of the network's square input")
    add("--crop-mode", choices=["center", "squash"], help="cut out the centre square, or squash the whole photo to it")
    add("--crop-pct", type=_share, metavar="SHARE", help="side of the centre square as a share of the shorter side")
    add("--interpolation", choices=["bilinear", "bicubic"], help="how photos are resized")
    add("--mean", type=_mean, nargs=3, metavar=("R", "G", "B"), help="subtracted from colours that are scaled to 0..1")
    add("--std", type=_std, nargs=3, metavar=("R", "G", "B"), help="divides the colours after that")
    add("--channel-order", choices=["rgb", "bgr"], help="order in which the network takes the colours")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _mean(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1; divide by 255 what is meant for colours of 0..255")
    return value


def _std(text: str) -> float:
    if (value := _mean(text)) == 0:
        raise argparse.ArgumentTypeError("0 can't divide a colour")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _side(text: str) -> int:
    if (side := _version(text)) > 1024:
        raise argparse.ArgumentTypeError(f"{text} pixels are too many; 1024 are the most")
    return side


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
