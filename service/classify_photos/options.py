"""What the command line asks for, beside the settings of the model."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Asked:
    """The options of ``classify``. ``top_k`` is None for 5 classes, or for all if there are fewer."""

    photos: Sequence[str]
    model: str | None
    top_k: int | None
    form: Literal["table", "json", "csv"]
    output: Path | None
    url: str | None
    key: str | None


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``."""
    group = parser.add_argument_group("photos and answers")
    add, either = group.add_argument, group.add_mutually_exclusive_group().add_argument
    add("photos", nargs="+", metavar="PHOTO", help="file, folder, pattern such as '*.jpg', or - for standard input")
    add("--model", metavar="NAME", help="model to ask; the default model if left out")
    add("--top-k", type=_count, metavar="NUMBER", help="classes to show of each photo; 5 if left out")
    either("--json", dest="form", action="store_const", const="json", default="table", help="write an object a line")
    either("--csv", dest="form", action="store_const", const="csv", help="write comma-separated values")
    add("--output", type=Path, metavar="FILE", help="write to FILE; a CSV file that was interrupted is continued")
    add("--url", type=_url, help="ask the server at this address, as http://127.0.0.1:8000, and load no model")
    add("--key", type=_key, default=os.environ.get("INFERCEPTION_KEY"),
        help="API key for the server; the variable INFERCEPTION_KEY hides it from other users")  # fmt: skip


def take(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Asked:
    """Take these options out of ``arguments``, and leave those that are settings. A contradiction ends the process."""
    given = vars(arguments)
    asked = Asked(**{field.name: given.pop(field.name) for field in fields(Asked)})
    if asked.url and given:
        parser.error(f"the server at --url has settings of its own: leave out {', '.join(map(_option, given))}")
    return asked


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return count


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise argparse.ArgumentTypeError("an API key is one line of ASCII")
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with http:// or https://")
    return text
