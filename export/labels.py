"""The names of a network's classes, from a file in one of the forms that people have. None of this needs torch."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Control characters come from a binary file, UTF-16 or a table. A byte order mark inside comes from joined files.
_STRAY = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
# What a CSV file of one column may have in its first line instead of a class.
_HEADERS = {"category", "class", "class_name", "label", "label_name", "name"}

Row = tuple[str, int, str]  # where in the file, the class's number, its name


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in ``path``, in order. The file is UTF-8, with or without a byte order mark.

    A ``.json`` file is a list of names, maps each number to its name or each name to its number, or is a
    ``config.json`` with ``id2label``. A ``.csv`` file has a column of names, and columns of numbers or none. Any other
    file names a class on each line. Numbers count from 0. Spaces round a name are no part of it. Raises OSError, and
    ValueError that names the file and the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it so") from error
    read = {".csv": _csv_rows, ".json": _json_rows}.get(path.suffix.lower(), _text_rows)
    rows: dict[int, tuple[str, str]] = {}  # by the class's number, where its name is, and the name
    try:
        for place, number, name in read(text):
            if number in rows:
                raise ValueError(f"{place} names class {number}, as {rows[number][0]} does; name each class once")
            rows[number] = place, _checked(name, place)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, {error}") from error
    if len(rows) < 2:
        raise ValueError(f"{path} must name at least 2 classes, not {len(rows)}")
    if missing := sorted(set(range(len(rows))) - set(rows)):
        raise ValueError(f"{path} names {len(rows)} classes, but not class {missing[0]}; number the classes from 0")
    return tuple(rows[number][1] for number in sorted(rows))  # a name may come twice: ImageNet has two classes "crane"


def _checked(name: str, place: str) -> str:
    name = name.strip()
    if not name:
        raise ValueError(f"{place} is empty; it must name a class")
    if stray := _STRAY.search(name):
        raise ValueError(f"{place} contains the character {stray[0]!r}; save the names as UTF-8 text")
    return name


def _text_rows(text: str) -> Iterator[Row]:
    *lines, last = text.replace("\r\n", "\n").split("\n")  # str.splitlines also splits at rare characters
    for number, line in enumerate([*lines, last] if last else lines):
        yield f"line {number + 1}", number, line


def _csv_rows(text: str) -> Iterator[Row]:
    """Take the names from the one column that is not all numbers, below a header or from the first line on.

    A first line is a header if it lacks a number in a column of numbers, or if it is a usual title of a single column.
    Without a column of numbers, a class has the number of its row.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)  # Excel writes semicolons where decimals have commas
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(f"line {reader.line_num}", cells) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    for place, cells in lines:
        if len(cells) != len(lines[0][1]):
            raise ValueError(f"{place} has {len(cells)} columns, and line 1 has {len(lines[0][1])}")
    columns = list(zip(*(cells for _, cells in lines), strict=True))
    numbers = [column for column in columns if len(columns) > 1 and all(map(str.isdecimal, column[1:]))]
    names = [column for column in columns if column not in numbers]
    if lines and len(names) != 1:
        raise ValueError(f"line 1 has {len(names)} columns of names; expected one, and columns of numbers or none")
    firsts = [column[0] for column in numbers]
    has_header = not all(map(str.isdecimal, firsts)) if numbers else lines and names[0][0].lower() in _HEADERS
    for row in range(1 if has_header else 0, len(lines)):
        place = lines[row][0]
        found = {int(column[row]) for column in numbers} or {row - bool(has_header)}
        if len(found) > 1:
            raise ValueError(f"{place} has the numbers {', '.join(map(str, sorted(found)))} for one class")
        yield place, found.pop(), names[0][row]


def _json_rows(text: str) -> Iterator[Row]:
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is no JSON: {error.msg}") from error
    if isinstance(content, dict):
        content = content.get("id2label", content)
    if not isinstance(content, list | dict):
        raise ValueError(f"expected a list or an object of names and numbers, not {str(content)[:80]!r}")
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        match key, value:
            case int() | str(), str() if str(key).isdecimal():
                yield f"entry {key!r}", int(key), value
            case str(), int() if not isinstance(value, bool):
                yield f"entry {key!r}", value, key
            case _:
                raise ValueError(f"entry {key!r} is {str(value)[:80]!r}; expected a name and its number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"entry {key!r} comes twice")
        content[key] = value
    return content
