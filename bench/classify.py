"""``python -m service classify`` beside the machine's offline limit, in turns, in one run."""

from __future__ import annotations

import asyncio
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from bench.in_process import InProcess, as_served
from bench.limits import offline_rate
from bench.report import Bar, Report
from bench.repository import Model
from service.classify_photos import answers
from service.classify_photos.forms import AsCsv
from service.classify_photos.here import here
from service.settings import Settings

log = logging.getLogger("bench")

PHOTOS = 1_000  # of one run
PAIRS = 5
OFFLINE_S = 20.0  # about as long as a run takes on two CPUs
NEEDED = 0.95  # of the offline limit


def measure(model: Model, settings: Settings, *, quick: bool = False) -> Report:
    """Measure images/s of the command in this process, without its start. Raises StartupError or InvalidManifest."""
    photos, pairs, seconds = (12, 1, 0.1) if quick else (PHOTOS, PAIRS, OFFLINE_S)
    served = as_served(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.jpg") for number in range(len(model.photos))]
        for file, photo in zip(files, model.photos, strict=True):
            file.write_bytes(photo.data)
        paths = [str(file) for file in itertools.islice(itertools.cycle(files), photos)]
        ours, limit = asyncio.run(_rates(served, paths, pairs, seconds))
    ratios = [our / most for our, most in zip(ours, limit, strict=True)]
    figures = {
        "served": str(served),
        "photos": photos,
        "command_images_per_s": ours,
        "offline_images_per_s": limit,
        "ratio": ratios,
    }
    bar = Bar("command over the offline limit, median of the pairs", statistics.median(ratios), NEEDED, at_least=True)
    return Report("classify", figures, [bar])


async def _rates(
    served: InProcess, paths: Sequence[str], pairs: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Return images/s of the command and of the offline limit, one of each for each pair."""
    ours, limit = list[float](), list[float]()
    settings = served.settings.model_copy(update={"cache_bytes": 0})  # the same few photos come again and again
    async with here(settings, served.model.name, None) as model:
        for number in range(pairs):
            limit.append(await asyncio.to_thread(offline_rate, served, seconds))
            ours.append(await _rate(model, paths, served.settings.max_body_bytes))
            log.info("pair %d: %.2f of %.2f images/s", number + 1, ours[-1], limit[-1])
    return ours, limit


async def _rate(model: answers.Model, paths: Sequence[str], most_bytes: int) -> float:
    """Return images/s of the command. Raises RuntimeError for a photo without an answer."""
    form, start = AsCsv(5), time.perf_counter()
    async with aclosing(answers.rows(paths, model, most_bytes)) as found:
        async for row in found:
            if isinstance(row.outcome, str):
                raise RuntimeError(f"{row.path}: {row.outcome}")
            form.text(row)
    return len(paths) / (time.perf_counter() - start)
