"""The examples of docs/clients.md."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"


def example(title: str, replacements: dict[str, str]) -> str:
    """Return the first indented block of a section, with what a test must replace."""
    section = re.split(rf"^#+ {re.escape(title)}\n", PAGE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    block = re.search(r"(?:^ {4}.*\n|^\n+(?= {4}))+", section, re.MULTILINE)
    assert block is not None
    text = textwrap.dedent(block[0])
    for written, replacement in replacements.items():
        assert written in text
        text = text.replace(written, replacement)
    return text
