"""Keeps what is served in step with the folders of the model repository. Only the event loop uses it.

The rules:
- Of each model, the labelled versions and the ``keep_versions`` highest that load are served. The other versions are
  retired. So a bad new version never takes the place of an old one.
- What is new, changed or gone counts once two looks in a row find the same. A folder may be half copied.
- If nothing at all is left, everything stays: a mount has gone.
- A version that failed is tried again once its folder has changed.
- One change at a time. A change is carried out to its end, even if the client that asked for it has left.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from service.errors import ModelNotFound, StartupError, Unavailable
from service.inference.repository import Listing, Signature, list_repository
from service.inference.traffic import Traffic
from service.registry import Registry
from service.settings import Settings

log = logging.getLogger("inferception")

Change = Callable[[str, int], Awaitable[None]]  # of what is served: loads or retires a version of a model


class Repository:
    """Follows one model repository.

    ``load`` and ``retire`` change what is served. Nobody finds a version once ``retire`` has been called; what that
    returns waits until the version is gone.
    """

    def __init__(self, settings: Settings, registry: Registry, load: Change, retire: Change) -> None:
        self._settings = settings
        self._registry = registry
        self._load = load
        self._retire = retire
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.last = Listing()  # what the last look found
        self._tried: dict[tuple[str, int], Signature] = {}  # what a version was when it was loaded last

    async def start(self, only: str | None = None) -> None:
        """Load what is there, or ``only`` one model.

        Raises StartupError when nothing can be served, and the settings are a cause.
        """
        default, path = self._settings.default_model, self._settings.model_repository
        async with self._changing:
            self.last = await asyncio.to_thread(list_repository, path, only)  # what is there at the start is complete
            names = sorted({name for name, found in self.last.versions.items() if found} | {*self.last.unreadable})
            if not names and self._settings.repository != "explicit":
                raise StartupError(f"no models in {path}: run `make export` first")
            if default is not None and names and default not in names:
                raise StartupError(f"default_model is {default!r}, but there is only {', '.join(names)}")
            for line in self.last.left_out:
                log.warning(line)
            refused = await self._follow(self.last)
        if refused and not any(self._registry):
            raise StartupError(refused[-1])

    async def close(self) -> None:
        """End what is still going on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def watch(self) -> None:
        """Look at the folders again and again from now on, until the process drains."""
        self._begin(self._watch())

    async def _watch(self) -> None:
        said = ""
        while not self._registry.draining:
            await asyncio.sleep(self._settings.poll_interval_ms / 1e3)
            try:
                await self.look()
                said = ""
            except StartupError as error:
                if said != (said := str(error)):
                    log.error("what is served stays: %s", error)
            except Exception:
                log.exception("what is served stays: looking at the model repository failed")

    async def look(self) -> None:
        """Look at the folders once, and change what is served. Raises StartupError when they can't be read."""
        async with self._changing:
            found = await asyncio.to_thread(list_repository, self._settings.model_repository)
            for line in found.left_out:
                if line not in self.last.left_out:
                    log.warning(line)
            if any(self._registry) and not any(found.versions.values()) and not found.unreadable:
                raise StartupError(f"the model repository {self._settings.model_repository} is empty: is it mounted?")
            await self._follow(found)
            self.last = found

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def change(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out ``work`` while nothing else changes what is served, and to its end even if the caller leaves."""

        async def carried_out() -> None:
            async with self._changing:
                await work

        await asyncio.shield(self._begin(carried_out()))

    async def listed(self) -> Listing:
        """List the folders. Raises Unavailable."""
        try:
            return await asyncio.to_thread(list_repository, self._settings.model_repository)
        except StartupError as error:
            raise Unavailable(str(error)) from None

    async def take(self, name: str) -> Listing:
        """List the folders, and take what is in those of a model for complete. Raises ModelNotFound or Unavailable."""
        found = await self.listed()
        if (reason := found.unreadable.get(name)) is not None:
            raise Unavailable(f"failed to load {name!r}: {reason}")
        if not found.versions.get(name):
            raise ModelNotFound(f"no model {name!r} in the model repository")
        for version in [version for other, version in self._registry.failures if other == name]:
            self._tried.pop((name, version), None)
        self.last.versions[name], self.last.traffic[name] = found.versions[name], found.traffic[name]
        return found

    async def _follow(self, found: Listing) -> list[str]:
        """Serve what was found. Return why versions that can't meet the settings are not served."""
        refused: list[str] = []
        served = {one.name for one in self._registry} | {name for name, _ in self._registry.failures}
        for name, reason in found.unreadable.items():
            self._fail(name, reason)
        for name in sorted(({*found.versions} | served) - {*found.unreadable}):
            traffic = found.traffic.get(name)
            if traffic is None or traffic != self.last.traffic.get(name):
                traffic = self._registry.traffic.get(name, Traffic())
            refused += await self.follow_model(name, found.versions.get(name, {}), traffic)
        return refused

    def _fail(self, name: str, reason: str) -> None:
        reason = reason.replace(f"{self._settings.model_repository}{os.sep}", "")
        if self._registry.failures.get((name, 0)) != reason:
            log.error("%s stays as it is: %s", name, reason)
        self._registry.failures[name, 0] = reason

    async def follow_model(self, name: str, found: Mapping[int, Signature], traffic: Traffic) -> list[str]:
        """Serve the best of the versions ``found`` of a model, and move its labels to ``traffic``.

        Returns why versions that can't meet the settings are not served.
        """
        failures, before = self._registry.failures, self._registry.traffic.get(name, Traffic())
        failures.pop((name, 0), None)
        best, refused = list[int](), list[str]()
        for number in sorted(found, reverse=True):
            if number not in traffic.versions | before.versions and len(best) == self._settings.keep_versions:
                continue
            refused += await self._try(name, number, found[number])
            if number in self._served(name):
                best = [*best, number][: self._settings.keep_versions]
        now = traffic.moved(before, self._served(name))
        self._registry.traffic[name] = now
        self._retire_all_but(({*best} | now.versions) & {*found}, name, found)
        if not self._served(name):
            del self._registry.traffic[name]
        for number in traffic.versions - {*found}:
            failures[name, number] = f"{name} has a label for version {number}, and no such version"
        return refused

    def drop(self, name: str) -> list[Awaitable[None]]:
        """Serve no version of a model. What is returned waits until they are gone."""
        self.last.versions.pop(name, None)
        self._registry.traffic.pop(name, None)
        return self._retire_all_but(set(), name, {})

    async def _try(self, name: str, version: int, signature: Signature) -> list[str]:
        """Load a version unless it was tried as it is now, or changed since the last look."""
        settled = self.last.versions.get(name, {}).get(version) == signature
        if not settled or self._tried.get((name, version)) == signature:
            return []
        refused = []
        try:
            await self._load(name, version)
        except StartupError as error:
            refused = [str(error)]  # no error, which would keep what was loaded until then
        self._tried[name, version] = signature
        return refused

    def _retire_all_but(self, kept: set[int], name: str, found: Mapping[int, Signature]) -> list[Awaitable[None]]:
        """Retire the versions that others supersede, and those that no folder has had in two looks."""
        going = []
        gone = {number for other, number in self._registry.failures if other == name} - {*found}
        for number in (self._served(name) - kept) | gone:
            if number in found or number not in self.last.versions.get(name, {}):
                self._tried.pop((name, number), None)
                going.append(self._retire(name, number))
        return going

    def _served(self, name: str) -> set[int]:
        return {one.version for one in self._registry if one.name == name}
