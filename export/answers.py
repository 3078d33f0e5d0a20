"""The answers of an evaluation, in a file that a stopped evaluation continues.

The first line of the file describes the evaluation: what answers, and which pictures. Each further line is the JSON of
one picture's ``Row``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """A network's answer: its most probable classes, the probability of the first, and the seconds that it took."""

    top: list[int]
    probability: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """A picture's name, and its answers by precision or else the reason why it can't be read."""

    picture: str
    answers: dict[str, Answer] = field(default_factory=dict)
    error: str | None = None


class AnswerFile:
    """Rows by the name of their picture, in memory and in the file at ``path``, which is open for more.

    A line that a killed process wrote in part is cut off. Raises ValueError if the file is of another evaluation.
    """

    def __init__(self, path: Path, evaluation: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._file.seek(0)
            content = self._file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._file.truncate(len(whole))
            first, *others = map(json.loads, whole.splitlines() or [b"null"])
            if first is None:
                self._write([evaluation])
            elif changed := [key for key in evaluation if first.get(key) != evaluation[key]]:
                raise ValueError(
                    f"{path} has answers of another evaluation: {', '.join(changed)} changed; pass another --out, or "
                    "remove the file"
                )
        except BaseException:
            self._file.close()
            raise
        self.rows = {row["picture"]: _row(row) for row in others}

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows. They are in the file when the call returns."""
        rows = list(rows)
        self._write([asdict(row) for row in rows])
        self.rows |= {row.picture: row for row in rows}

    def _write(self, values: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _row(values: dict[str, Any]) -> Row:
    answers = {precision: Answer(**answer) for precision, answer in values["answers"].items()}
    return Row(values["picture"], answers, values["error"])
