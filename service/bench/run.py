"""Measures all there is to measure, one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence

from service.bench import limits
from service.bench.over_http import measure_idle, measure_saturated
from service.bench.report import Report
from service.errors import StartupError
from service.inference.manifest import checked_file, read_manifest
from service.registry import version_folders
from service.settings import Settings


def run(settings: Settings, photos: Sequence[bytes] = ()) -> Report:
    """Measure every model, in its highest version, with ``photos``, encoded images, or else with its golden samples.

    Over HTTP at saturation it is only the default model, where the settings name one.

    Raises StartupError or InvalidManifest for a model that can't be loaded.
    """
    versions = sorted(version_folders(settings.model_repository), key=lambda folder: int(folder.name))
    folders = sorted({folder.parent: folder for folder in versions}.values())
    if not folders:
        raise StartupError(f"no models in {settings.model_repository}: run `make export` first")
    saturated = [folder for folder in folders if settings.default_model in (None, folder.parent.name)]
    if not saturated:
        raise StartupError(f"default_model is {settings.default_model!r}, which {settings.model_repository} lacks")
    samples = {
        folder: photos or [checked_file(folder, sample).read_bytes() for sample in read_manifest(folder).golden]
        for folder in folders
    }
    measured = [limits.measure(folder, settings, samples[folder]) for folder in folders]
    starts, idle = measure_idle(samples, settings)
    return Report(
        measured, starts, idle, [measure_saturated(folder, settings, samples[folder]) for folder in saturated]
    )
