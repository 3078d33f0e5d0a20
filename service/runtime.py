"""One process from start to end: models are loaded, published and retired; then the process drains and closes.

An ASGI lifespan enters the runtime. Only the event loop publishes and retires. Loading runs in a thread.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from service.auth import Keys, read_keys
from service.budget import Budget
from service.classifier import Classifier, load
from service.errors import InvalidManifest, StartupError
from service.inference.decoders import Decoders
from service.inference.repository import model_folders, version_folders
from service.metrics import Metrics
from service.predict import Predict
from service.registry import Registry
from service.scheduling.batcher import Batcher
from service.settings import Settings

log = logging.getLogger("inferception")


class Runtime:
    """What all doors share. Enter it inside the event loop that serves.

    Raises StartupError for a wrong file of API keys.
    """

    loading: asyncio.Task[None]  # fails with StartupError when the process cannot serve as it is configured

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._decoders = Decoders(settings)
        self.registry = Registry(settings.default_model, self._decoders)
        self.predict = Predict(self.registry, self.metrics, settings)
        self.keys = Keys(read_keys(settings.api_keys)) if settings.api_keys else None
        self.body_bytes = Budget(settings.max_body_bytes_in_flight)
        self._batcher = Batcher(self.metrics, settings.probe_interval_ms / 1e3)
        self._retiring: set[asyncio.Task[None]] = set()
        self.metrics.registry.register(self.registry)
        self.metrics.registry.register(self._decoders)
        self.metrics.held("body_bytes_in_flight", "Bytes of request bodies held in memory", self.body_bytes)

    async def __aenter__(self) -> Self:
        self._decoders.start()
        self.loading = asyncio.create_task(self._load_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drain()
        self.loading.cancel()
        await asyncio.gather(self.loading, return_exceptions=True)
        self._decoders.close()
        self._batcher.close()

    def drain(self) -> None:
        """Take no new work. Accepted work goes on."""
        self.registry.phase = "draining"

    async def load(self, folder: Path) -> None:
        """Load a version, and publish it in place of a version with its number, or note why it cannot be served.

        Raises StartupError when the settings cannot be met, by this machine or by this model.
        """
        loop = asyncio.get_running_loop()

        def run_alone(work: Callable[[], float]) -> float:
            return asyncio.run_coroutine_threadsafe(self._batcher.try_out(work), loop).result()

        try:
            classifier = await asyncio.to_thread(load, folder, self.settings, self._batcher, self._decoders, run_alone)
        except Exception as error:
            self.registry.failures[folder.parent.name, int(folder.name)] = self._reason(error)
            log.error("not serving %s: %s", folder, error, exc_info=not isinstance(error, StartupError))
            if isinstance(error, StartupError) and not isinstance(error, InvalidManifest):
                raise
            return
        self._batcher.add(classifier.served)
        replaced = self.registry.publish(classifier)
        if not classifier.manifest.trained:
            log.warning("%r has RANDOM weights: its answers mean nothing, only its speed does", classifier)
        place = f"{classifier.placement.precision} on {classifier.placement.provider}"
        first_ms = classifier.batch_s[1] * 1e3
        log.info("loaded %r: %s (%s), batch 1 in %.0f ms", classifier, place, classifier.placement.reason, first_ms)
        await self._end(replaced)

    def _reason(self, error: Exception) -> str:
        """Return why a folder is not served, for clients: where the model repository is, only the log tells."""
        return (str(error) or repr(error)).replace(f"{self.settings.model_repository}{os.sep}", "")

    async def retire(self, name: str, version: int) -> None:
        """Serve a version no longer: it finishes what was asked of it and goes, with all its memory and figures.

        Raises ModelNotFound.
        """
        await self._end(self.registry.withdraw(name, version))

    async def _end(self, classifier: Classifier | None) -> None:
        """Retire a version that nobody finds any more, even if the caller does not wait for that."""
        if classifier is not None:
            task = asyncio.create_task(self._retire(classifier))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            del classifier
            await asyncio.shield(task)

    async def _retire(self, classifier: Classifier) -> None:
        await classifier.retire()
        if not any(other.name == classifier.name for other in self.registry):
            self.metrics.forget(classifier.name)
        log.info("retired %r", classifier)

    async def _load_all(self) -> None:
        try:
            await self._load_repository()
        except Exception as error:
            self.registry.start_failed = f"can't start: {error}"
            log.error(self.registry.start_failed, exc_info=None if isinstance(error, StartupError) else error)
            raise
        if not self.registry.draining:
            self.registry.phase = "serving"

    async def _load_repository(self) -> None:
        repository, default = self.settings.model_repository, self.settings.default_model
        folders: list[Path] = []
        for model in model_folders(repository):
            try:
                folders += version_folders(model)
            except InvalidManifest as error:
                self.registry.failures[model.name, 0] = self._reason(error)
                log.error("not serving %s: %s", model, error)
        names = sorted({*(folder.parent.name for folder in folders), *(name for name, _ in self.registry.failures)})
        if not names:
            raise StartupError(f"no models in {repository}: run `make export` first")
        if default is not None and default not in names:
            raise StartupError(f"default_model is {default!r}, but there is only {', '.join(names)}")
        await self._load_versions(folders)

    async def _load_versions(self, folders: Sequence[Path]) -> None:
        """Load versions in turn. Raises StartupError when none is served, and the settings are a cause."""
        refused: str | None = None  # no error, which would keep what was loaded until then
        for folder in folders:
            try:
                await self.load(folder)
            except StartupError as error:
                refused = str(error)
        if refused is not None and not any(self.registry):
            raise StartupError(refused)
