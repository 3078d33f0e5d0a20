"""What clients may change of what is served: they load and unload models, and label versions."""

import asyncio
from collections.abc import Awaitable, Iterable

from service.errors import Forbidden, ModelNotFound, Unavailable
from service.inference.traffic import Traffic, write_traffic
from service.registry import Registry
from service.repository import Repository
from service.settings import Settings


class ModelControl:
    """Changes what is served, one change at a time, as far as the settings let clients do that."""

    def __init__(self, settings: Settings, registry: Registry, repository: Repository) -> None:
        self._settings = settings
        self._registry = registry
        self._repository = repository
        self._listing = asyncio.Lock()

    async def load(self, name: str) -> None:
        """Load a model as it is in its folder now.

        Raises Forbidden, ModelNotFound, or Unavailable with the reason if its highest version does not load.
        """
        self._allow(self._settings.repository != "fixed", "load")
        await self._repository.change(self._load(name))

    async def unload(self, name: str) -> None:
        """Serve a model no longer, and wait until it is gone. Raises Forbidden."""
        self._allow(self._settings.repository == "explicit", "unload")
        going: list[Awaitable[None]] = []
        await self._repository.change(self._unload(name, going))
        await asyncio.gather(*going)

    async def label(self, name: str, traffic: Traffic) -> None:
        """Serve by these labels of a model's versions, and write them into its folder.

        Raises Forbidden, ModelNotFound, or Unavailable if a version does not load or the file can't be written. Then
        the labels stay as they were.
        """
        self._allow(self._settings.repository != "fixed", "label")
        await self._repository.change(self._label(name, traffic))

    async def unloaded(self) -> list[tuple[str, int]]:
        """Return the versions that are in the folders and neither served nor failed. Raises Unavailable."""
        found = self._repository.last
        if self._settings.repository == "explicit":  # nothing else looks
            async with self._listing:
                found = await self._repository.listed()
        known = {(one.name, one.version) for one in self._registry} | {*self._registry.failures}
        return sorted({(name, number) for name, versions in found.versions.items() for number in versions} - known)

    def _allow(self, by_mode: bool, what: str) -> None:
        if not self._settings.admin_api:
            raise Forbidden(f"no client may {what} models: the server runs without admin_api")
        if not by_mode:
            raise Forbidden(f"no client may {what} models: the server runs with repository={self._settings.repository}")

    async def _load(self, name: str) -> None:
        found = await self._repository.take(name)
        await self._repository.follow_model(name, found.versions[name], found.traffic[name])
        self._demand(name, [max(found.versions[name])])

    async def _unload(self, name: str, going: list[Awaitable[None]]) -> None:
        going += self._repository.drop(name)

    async def _label(self, name: str, traffic: Traffic) -> None:
        found = (await self._repository.take(name)).versions[name]
        if missing := traffic.versions - {*found}:
            there = ", ".join(map(str, sorted(found)))
            raise ModelNotFound(f"no version {min(missing)} of {name}; there is {there}")
        before = self._registry.traffic.get(name, Traffic())
        await self._repository.follow_model(name, found, traffic)
        try:
            self._demand(name, traffic.versions)
            await asyncio.to_thread(write_traffic, self._settings.model_repository / name, traffic)
        except Unavailable:
            await self._repository.follow_model(name, found, before)
            raise
        self._repository.last.traffic[name] = traffic

    def _demand(self, name: str, versions: Iterable[int]) -> None:
        for version in versions:
            if (reason := self._registry.failures.get((name, version))) is not None:
                raise Unavailable(f"failed to load {name!r} version {version}: {reason}")
