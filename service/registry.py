"""The model repository as loaded: which models there are, which failed and why, and whether all is ready."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from service.budget import Budget
from service.classifier import Classifier
from service.errors import Draining, InvalidManifest, InvalidParameter, ModelNotFound, StartupError, Unavailable
from service.metrics import Metrics
from service.scheduling.batcher import Batcher
from service.settings import Settings

log = logging.getLogger("inferception")


class Registry:
    """All versions of all models under ``settings.model_repository``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[str, dict[int, Classifier]] = {}
        self.failures: dict[str, str] = {}  # "<name>/<version>": why it is not served
        self._loaded = False
        self.draining = False
        self.metrics = Metrics()
        self._pixels_in_flight = Budget(settings.max_pixels_in_flight)
        self._batcher = Batcher(
            settings.decode_threads, self.metrics, settings.probe_interval_ms / 1e3, devices=settings.batches_at_a_time
        )

    def load(self) -> None:
        """Load every version found; blocks for seconds. A model that can't be loaded is kept in ``failures``.

        Raises StartupError when there is no model at all, or when the device can't run one.
        """
        folders = sorted(version_folders(self._settings.model_repository))
        if not folders:
            raise StartupError(f"no models in {self._settings.model_repository}: run `make export` first")
        for folder in folders:
            try:
                classifier = Classifier(folder, self._settings, self._batcher, self._pixels_in_flight)
            except InvalidManifest as error:
                self.failures[f"{folder.parent.name}/{folder.name}"] = str(error)
                log.error("not serving %s: %s", folder, error)
                continue
            self._batcher.add(classifier.lane)
            self._models.setdefault(classifier.manifest.name, {})[classifier.manifest.version] = classifier
            if not classifier.manifest.trained:
                log.warning("%r has RANDOM weights: its answers mean nothing, only its speed does", classifier)
            log.info(
                "loaded %r: %s, %s (%s), batch 1 in %.0f ms",
                classifier,
                classifier.placement.precision,
                classifier.placement.provider,
                classifier.placement.reason,
                classifier.warm_up_s[1] * 1e3,
            )
        default = self._settings.default_model
        if default is not None and default not in {folder.parent.name for folder in folders}:
            raise StartupError(f"default_model is {default!r}, but there is only {', '.join(self._models)}")
        self._loaded = True

    def __iter__(self) -> Iterator[Classifier]:
        """Iterate over the loaded models, by name and version."""
        for versions in self._models.values():
            yield from versions.values()

    def get(self, name: str | None, version: int | None = None) -> Classifier:
        """Return the model of that name, its highest version unless one is asked for.

        Without a name: the default model, or the only one. Raises Unavailable, ModelNotFound or InvalidParameter.
        """
        if self.draining:
            raise Draining("the server is shutting down")
        if not self._loaded:
            raise Unavailable("the models are being loaded")
        known = ", ".join(self._models)
        name = name or self._settings.default_model or (known if len(self._models) == 1 else None)
        if name is None:
            raise InvalidParameter(f"say which model: ?model= one of {known}")
        if name not in self._models:
            for failed, reason in self.failures.items():
                if failed.startswith(f"{name}/"):
                    raise Unavailable(reason)
            raise ModelNotFound(f"no model {name!r}; there is {known}")
        versions = self._models[name]
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            raise ModelNotFound(f"no version {version} of {name}; there is {', '.join(map(str, versions))}")
        return versions[version]

    def drain(self) -> None:
        """Take no new work; what was accepted goes on."""
        self.draining = True

    @property
    def unready(self) -> str | None:
        """Why the server is not ready, or None when it is."""
        if self.draining:
            return "the server is shutting down"
        if not self._loaded:
            return "the models are being loaded"
        broken = [f"{model!r}: {model.unready}" for model in self if model.unready is not None]
        return "; ".join([*self.failures.values(), *broken]) or None

    def observe(self) -> None:
        """Bring the gauges up to date."""
        self._batcher.catch_up()
        self.metrics.ready.set(self.unready is None)
        self.metrics.pixels_in_flight.set(self._pixels_in_flight.held)
        for name, versions in self._models.items():
            lanes = [model.lane for model in versions.values()]
            self.metrics.queue_depth.labels(name).set(sum(len(lane.queue) for lane in lanes))
            self.metrics.queue_bytes.labels(name).set(sum(lane.pixels.leased_bytes for lane in lanes))
        for model in self:
            version, place = (model.manifest.name, model.manifest.version), model.placement
            self.metrics.model_ready.labels(*version, place.provider, place.precision).set(model.unready is None)
            for provider, nodes in place.nodes.items():
                self.metrics.model_nodes.labels(*version, provider).set(nodes)

    def close(self) -> None:
        """Stop the threads."""
        self._batcher.close()


def version_folders(repository: Path) -> Iterator[Path]:
    """Yield the folder of every version of every model."""
    for folder in repository.glob("*/*"):
        if folder.is_dir() and folder.name.isdecimal() and not folder.parent.name.startswith("."):
            yield folder
