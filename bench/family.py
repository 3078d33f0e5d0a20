"""Every model of the repository beside the default model: images/s of the sessions alone, in turns, in one run."""

from __future__ import annotations

import functools
import logging
import statistics
from collections.abc import Mapping

import numpy as np

from bench.in_process import as_served, every_way
from bench.plots import BarChart
from bench.report import Report
from bench.repository import Model
from bench.timing import in_turns
from service.settings import Settings

log = logging.getLogger("bench")

ROUNDS = 7


def measure(models: Mapping[str, Model], default: Model, settings: Settings, *, quick: bool = False) -> Report:
    """Measure every model in every way that its device allows, with single images and with full batches.

    ``over_the_default_model`` is the images/s over those of the default model's first way, fp32 unless the settings
    name another precision, with the same batch. Raises StartupError or InvalidManifest if a model can't be loaded.
    """
    ways = {
        f"{name}, {way}": found
        for name, model in models.items()
        for way, found in every_way(model, settings, as_served(model, settings)).items()
    }
    sizes = (1, settings.max_batch_size)
    log.info("measuring %s", "; ".join(ways))
    work = {
        (name, size): functools.partial(way.session.run, np.zeros_like(way.empty(size)))
        for name, way in ways.items()
        for size in sizes
    }
    seconds = in_turns(work, 1 if quick else ROUNDS)
    rates = {name: {size: size / statistics.median(seconds[name, size]) for size in sizes} for name in ways}
    whole = next(rate for name, rate in rates.items() if name.startswith(f"{default.name}, "))
    figures: dict[str, object] = {
        "session_images_per_s_by_batch": rates,
        "over_the_default_model": {
            name: {size: rate / whole[size] for size, rate in by_size.items()} for name, by_size in rates.items()
        },
    }
    bars = {f"{name}, batch {size}": rate for name, by_size in rates.items() for size, rate in by_size.items()}
    return Report("family", figures, plots=[BarChart("session alone, images/s", bars)])
