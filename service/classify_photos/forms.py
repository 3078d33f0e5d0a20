"""The forms of the output: a table with bars for people, lines of JSON, and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from typing import TextIO

from rich.bar import Bar
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from service.classify_photos.answers import Answer, Row
from service.inference.manifest import Prediction
from service.logs import visible


def as_json(row: Row) -> str:
    """Return one object on a line: the path with the answer's entries, or with the entry ``error``."""
    found = vars(row.outcome) if isinstance(row.outcome, Answer) else {"error": row.outcome}
    return f"{json.dumps({'path': row.path} | found)}\n"


class AsCsv:
    """As many columns as ``top_k`` classes need. Columns without a class stay empty."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        best = [f"{name}_{place}" for place in range(1, top_k + 1) for name in ("label", "probability")]
        self.columns = ["path", "model", "version", *best, "error"]
        self.header = self._line(self.columns)

    def text(self, row: Row) -> str:
        """Return the row's line, or its lines if the path has several."""
        if not isinstance(row.outcome, Answer):
            return self._line([row.path, *[""] * (len(self.columns) - 2), row.outcome])
        best = [cell for one in row.outcome.predictions for cell in (one["label"], one["probability"])]
        best += [""] * (2 * self._top_k - len(best))
        return self._line([row.path, row.outcome.model, row.outcome.version, *best, ""])

    def _line(self, cells: Sequence[object]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        return line.getvalue()


class AsTable:
    """Rows with bars, as wide as the terminal that ``out`` is. Each is shown at once, so no width depends on others."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)
        self._answered_by = ""
        wide = self._console.width - 9  # less the probability and the spaces between columns
        self._path, self._label = wide * 9 // 20, wide * 3 // 10
        self._bar = wide - self._path - self._label

    def text(self, row: Row) -> str:
        """Return a line for each class, below the model's name where another model answers than before."""
        with self._console.capture() as shown:
            if isinstance(row.outcome, Answer):
                self._name(row.outcome)
                self._classes(row.path, row.outcome.predictions)
            else:
                table = self._grid(self._path, self._label + self._bar + 7)
                table.add_row(Text(visible(row.path)), Text(visible(row.outcome), style="red"))
                self._console.print(table)
        return shown.get()

    def _name(self, answer: Answer) -> None:
        name = f"{answer.model} version {answer.version}"
        if not answer.trained:
            name += ", with RANDOM weights: the labels mean nothing"
        if name != self._answered_by:
            self._console.print(Text(visible(name), style="bold"))
            self._answered_by = name

    def _classes(self, path: str, predictions: Sequence[Prediction]) -> None:
        labels = Text("\n".join(visible(one["label"]) for one in predictions), no_wrap=True, overflow="ellipsis")
        bars = [Bar(1.0, 0.0, one["probability"], width=self._bar) for one in predictions]
        probabilities = "\n".join(f"{one['probability']:6.1%}" for one in predictions)
        table = self._grid(self._path, self._label, self._bar, 6)
        table.add_row(Text(visible(path)), labels, Group(*bars), probabilities)
        self._console.print(table)

    def _grid(self, *widths: int) -> Table:
        grid = Table.grid(padding=(0, 1))
        for width in widths:
            grid.add_column(width=width, overflow="fold")
        return grid
