"""One process from start to end: models are loaded, published and retired; then the process drains and closes.

An ASGI lifespan enters the runtime. Only the event loop publishes and retires. Loading runs in a thread.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from service.auth import Keys, read_keys
from service.budget import Budget
from service.classifier import Classifier, load
from service.errors import InvalidManifest, StartupError
from service.inference.decoders import Decoders
from service.metrics import Metrics
from service.model_control import ModelControl
from service.predict import Predict
from service.registry import Registry
from service.repository import Repository
from service.scheduling.batcher import Batcher
from service.settings import Settings

log = logging.getLogger("inferception")


class Runtime:
    """What all doors share. Enter it inside the event loop that serves.

    Raises StartupError for a wrong file of API keys.
    """

    loading: asyncio.Task[None]  # fails with StartupError when the process cannot serve as it is configured

    def __init__(self, settings: Settings, only: str | None = None) -> None:
        """Serve all models of the repository, or ``only`` one."""
        self.settings, self._only = settings, only
        self.metrics = Metrics()
        self._decoders = Decoders(settings)
        self.registry = Registry(settings.default_model, self._decoders)
        self.repository = Repository(settings, self.registry, self.load, self.retire)
        self.control = ModelControl(settings, self.registry, self.repository)
        self.predict = Predict(self.registry, self.metrics, settings)
        self.keys = Keys(read_keys(settings.api_keys)) if settings.api_keys else None
        self.body_bytes = Budget(settings.max_body_bytes_in_flight)
        self._batcher = Batcher(self.metrics, settings.probe_interval_ms / 1e3)
        self._retiring: set[asyncio.Task[None]] = set()
        # One thread loads all: what a load has freed is there for that thread's next load, but for no other thread.
        self._loader = ThreadPoolExecutor(1, "load")
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
        await asyncio.gather(self.loading, self.repository.close(), return_exceptions=True)
        self._loader.shutdown(wait=False)
        self._decoders.close()
        self._batcher.close()

    def drain(self) -> None:
        """Take no new work. Accepted work goes on."""
        self.registry.phase = "draining"

    async def load(self, name: str, version: int) -> None:
        """Load a version, and publish it in place of a version with its number, or note why it cannot be served.

        Raises StartupError when the settings cannot be met, by this machine or by this model.
        """
        loop, folder = asyncio.get_running_loop(), self.settings.model_repository / name / str(version)

        def run_alone(work: Callable[[], float]) -> float:
            return asyncio.run_coroutine_threadsafe(self._batcher.try_out(work), loop).result()

        try:
            asked = folder, self.settings, self._batcher, self._decoders, run_alone
            classifier = await loop.run_in_executor(self._loader, load, *asked)
        except Exception as error:
            self.registry.failures[name, version] = self._reason(error)
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
        self._end(replaced)

    def _reason(self, error: Exception) -> str:
        """Return why a folder is not served, for clients: where the model repository is, only the log tells."""
        return (str(error) or repr(error)).replace(f"{self.settings.model_repository}{os.sep}", "")

    def retire(self, name: str, version: int) -> asyncio.Future[None]:
        """Serve a version no longer: it finishes what was asked of it and goes, with all its memory and figures.

        Nobody finds the version from now on. Await what this returns to wait until it is gone. Raises ModelNotFound.
        """
        return self._end(self.registry.withdraw(name, version))

    def _end(self, classifier: Classifier | None) -> asyncio.Future[None]:
        """Retire a version that nobody finds any more, even if the caller does not wait for that."""
        task = asyncio.create_task(self._retire(classifier))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return asyncio.shield(task)

    async def _retire(self, classifier: Classifier | None) -> None:
        if classifier is None:
            return
        await classifier.retire()
        served = {one.version for one in self.registry if one.name == classifier.name}
        if classifier.version not in served:
            self.metrics.forget(classifier.name, classifier.version, last=not served)
        log.info("retired %r", classifier)

    async def _load_all(self) -> None:
        try:
            await self.repository.start(self._only)
        except Exception as error:
            self.registry.start_failed = f"can't start: {error}"
            log.error(self.registry.start_failed, exc_info=None if isinstance(error, StartupError) else error)
            raise
        if not self.registry.draining:
            self.registry.phase = "serving"
            if self.settings.repository == "poll":
                self.repository.watch()
