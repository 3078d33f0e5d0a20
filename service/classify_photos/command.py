"""From the arguments to the exit code."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from service.classify_photos import photos
from service.classify_photos.answers import Model, Row, rows
from service.classify_photos.forms import AsCsv, AsTable, as_json
from service.classify_photos.here import here
from service.classify_photos.options import Asked
from service.classify_photos.output import already_in, opened
from service.classify_photos.over_http import over_http
from service.errors import InvalidParameter, ModelNotFound, ServiceError
from service.settings import Settings


def classify(asked: Asked, settings: Settings) -> int:
    """Classify photos. Return the exit code: 0 all have answers, 1 some or all have not, 2 bad usage.

    A signal ends the process as if nobody had caught the signal, so that a shell's loop stops, too.
    """
    try:
        return _classify(asked, settings)
    except (InvalidParameter, ModelNotFound) as error:
        print(f"can't classify: {error}", file=sys.stderr)  # noqa: T201 - the command's own words
        return 2
    except KeyboardInterrupt:
        return _end_by(signal.SIGINT)
    except BrokenPipeError:
        return _end_by(signal.SIGPIPE)
    except (ServiceError, OSError) as error:  # the latter while rows are written
        print(f"can't classify: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _classify(asked: Asked, settings: Settings) -> int:
    paths = photos.find(asked.photos, settings.formats.split(","))
    as_csv = AsCsv(asked.top_k or 5)
    resume = asked.form == "csv"
    done = already_in(asked.output, as_csv) if resume and asked.output else {}
    left = [path for path in paths if path not in done]
    with opened(asked.output, as_csv.header if resume else "", resume=resume) as out:
        forms = {"csv": as_csv.text, "json": as_json, "table": AsTable(out).text}
        failed = asyncio.run(_write_rows(left, forms[asked.form], asked, settings, out)) if left else 0
    return int(failed > 0 or any(done.values()))


async def _write_rows(
    paths: Sequence[str], form: Callable[[Row], str], asked: Asked, settings: Settings, out: TextIO
) -> int:
    """Write a row for each photo. Return how many rows have an error."""
    failed = 0

    def write(text: str) -> None:
        out.write(text)
        out.flush()

    async with _model(asked, settings) as model, aclosing(rows(paths, model, settings.max_body_bytes)) as found:
        with _progress(out) as progress:
            task = progress.add_task("photos", total=len(paths))
            async for row in found:
                failed += isinstance(row.outcome, str)
                await asyncio.to_thread(write, form(row))  # a reader that pauses stops no photo
                progress.advance(task)
    return failed


def _model(asked: Asked, settings: Settings) -> AbstractAsyncContextManager[Model]:
    if asked.url is None:
        return here(settings, asked.model, asked.top_k)
    return over_http(asked.url, asked.key, asked.model, asked.top_k, settings.max_timeout_ms)


def _progress(out: TextIO) -> Progress:
    """Return a bar on standard error, if that is a terminal and the rows go elsewhere."""
    shown = sys.stderr.isatty() and not out.isatty()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)


def _end_by(number: signal.Signals) -> int:
    """End this process by a signal. Return the exit code where that has no effect: as a container's first process."""
    logging.shutdown()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    return 128 + number
