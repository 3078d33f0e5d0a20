"""Keeps what is served in step with the folders of the model repository. Only the event loop uses it.

The rules:
- Of each model, the labelled versions and the ``keep_versions`` highest that load are served. A version goes once
  a better one has come, so a bad new version never takes the place of an old one.
- A new or changed folder is left alone until two looks in a row find the same files in it. It may be half copied.
- A version whose folder has gone is retired, unless nothing at all is left: then a mount has gone.
- A version that failed is tried again once its folder has changed.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping

from service.errors import Forbidden, ModelNotFound, StartupError, Unavailable
from service.inference.repository import Listing, Signature, list_repository
from service.inference.traffic import Traffic, write_traffic
from service.registry import Registry
from service.settings import Settings

log = logging.getLogger("inferception")

Change = Callable[[str, int], Awaitable[None]]  # of what is served: a model's name and a version


class Repository:
    """Follows one model repository. ``load`` and ``retire`` change what is served."""

    def __init__(self, settings: Settings, registry: Registry, load: Change, retire: Change) -> None:
        self._settings = settings
        self._registry = registry
        self._load = load
        self._retire = retire
        self._changing = asyncio.Lock()
        self._last = Listing()
        self._tried: dict[tuple[str, int], Signature] = {}  # what a version was when it was loaded last

    async def start(self, only: str | None = None) -> None:
        """Load what is there, or ``only`` one model.

        Raises StartupError when nothing can be served, and the settings are a cause.
        """
        default, path = self._settings.default_model, self._settings.model_repository
        async with self._changing:
            self._last = await asyncio.to_thread(list_repository, path, only)  # what is there at the start is complete
            names = sorted({name for name, found in self._last.versions.items() if found} | {*self._last.unreadable})
            if not names and self._settings.repository != "explicit":
                raise StartupError(f"no models in {path}: run `make export` first")
            if default is not None and names and default not in names:
                raise StartupError(f"default_model is {default!r}, but there is only {', '.join(names)}")
            for line in self._last.left_out:
                log.warning(line)
            refused = await self._follow(self._last)
        if refused and not any(self._registry):
            raise StartupError(refused[-1])

    async def watch(self) -> None:
        """Look at the folders again and again, until the process drains."""
        while not self._registry.draining:
            await asyncio.sleep(self._settings.poll_interval_ms / 1e3)
            try:
                await self.look()
            except StartupError as error:
                log.error("what is served stays: %s", error)
            except Exception:
                log.exception("what is served stays: looking at the model repository failed")

    async def look(self) -> None:
        """Look at the folders once, and change what is served. Raises StartupError when they can't be read."""
        async with self._changing:
            found = await asyncio.to_thread(list_repository, self._settings.model_repository)
            for line in found.left_out:
                if line not in self._last.left_out:
                    log.warning(line)
            if any(self._registry) and not any(found.versions.values()) and not found.unreadable:
                raise StartupError(f"the model repository {self._settings.model_repository} is empty: is it mounted?")
            await self._follow(found)
            self._last = found

    async def load(self, name: str) -> None:
        """Load a model as it is in its folder now.

        Raises Forbidden, ModelNotFound, or Unavailable with the reason if its highest version does not load.
        """
        self._allow(self._settings.repository != "fixed", "load")
        async with self._changing:
            found = await self._found(name)
            for version in [version for other, version in self._registry.failures if other == name]:
                self._tried.pop((name, version), None)
            self._last.versions[name] = found.versions[name]  # it is complete: somebody says so
            await self._follow_model(name, found.versions[name], found.traffic[name])
            highest = max(found.versions[name])
            if (reason := self._registry.failures.get((name, highest))) is not None:
                raise Unavailable(f"failed to load {name!r}: {reason}")

    async def unload(self, name: str) -> None:
        """Serve a model no longer. Raises Forbidden."""
        self._allow(self._settings.repository == "explicit", "unload")
        async with self._changing:
            self._last.versions.pop(name, None)
            await self._follow_model(name, {}, Traffic())

    async def label(self, name: str, traffic: Traffic) -> None:
        """Write the labels of a model's versions into its folder, and serve by them.

        Raises Forbidden, ModelNotFound, or Unavailable if a version does not load or the file can't be written.
        """
        self._allow(self._settings.repository != "fixed", "label")
        async with self._changing:
            found = (await self._found(name)).versions[name]
            if missing := traffic.versions - {*found}:
                there = ", ".join(map(str, sorted(found)))
                raise ModelNotFound(f"no version {min(missing)} of {name}; there is {there}")
            await asyncio.to_thread(write_traffic, self._settings.model_repository / name, traffic)
            self._last.versions[name] = found
            await self._follow_model(name, found, traffic)
            for version in traffic.versions:
                if (reason := self._registry.failures.get((name, version))) is not None:
                    raise Unavailable(f"failed to load {name!r} version {version}: {reason}")

    async def unloaded(self) -> list[tuple[str, int]]:
        """Return the versions that are in the folders and neither served nor failed."""
        found = await asyncio.to_thread(list_repository, self._settings.model_repository)
        known = {(one.name, one.version) for one in self._registry} | {*self._registry.failures}
        return sorted({(name, number) for name, versions in found.versions.items() for number in versions} - known)

    def _allow(self, by_mode: bool, what: str) -> None:
        if not self._settings.admin_api:
            raise Forbidden(f"no client may {what} models: the server runs without admin_api")
        if not by_mode:
            raise Forbidden(f"no client may {what} models: the server runs with repository={self._settings.repository}")

    async def _found(self, name: str) -> Listing:
        """List the repository, in which ``name`` must have a version."""
        found = await asyncio.to_thread(list_repository, self._settings.model_repository)
        if (reason := found.unreadable.get(name)) is not None:
            raise Unavailable(f"failed to load {name!r}: {reason}")
        if not found.versions.get(name):
            raise ModelNotFound(f"no model {name!r} in the model repository")
        return found

    async def _follow(self, found: Listing) -> list[str]:
        """Serve what was found. Return why versions that can't meet the settings are not served."""
        refused: list[str] = []
        served = {one.name for one in self._registry} | {name for name, _ in self._registry.failures}
        for name, reason in found.unreadable.items():
            self._fail(name, reason)
        for name in sorted(({*found.versions} | served) - {*found.unreadable}):
            versions, traffic = found.versions.get(name, {}), found.traffic.get(name, Traffic())
            refused += await self._follow_model(name, versions, traffic)
        return refused

    def _fail(self, name: str, reason: str) -> None:
        reason = reason.replace(f"{self._settings.model_repository}{os.sep}", "")
        if self._registry.failures.get((name, 0)) != reason:
            log.error("%s stays as it is: %s", name, reason)
        self._registry.failures[name, 0] = reason

    async def _follow_model(self, name: str, found: Mapping[int, Signature], traffic: Traffic) -> list[str]:
        """Serve the best versions of a model. Return why versions that can't meet the settings are not served."""
        failures, before = self._registry.failures, self._registry.traffic.get(name, Traffic())
        failures.pop((name, 0), None)
        best, labelled, refused = list[int](), set[int](), list[str]()
        for number in sorted(found, reverse=True):
            has_label = number in traffic.versions | before.versions
            if not has_label and len(best) == self._settings.keep_versions:
                continue
            refused += await self._try(name, number, found[number])
            if number in self._served(name):
                labelled |= {number} if has_label else set()
                best = [*best, number][: self._settings.keep_versions]
        # A label moves once its version is served. Until then the version that had it keeps it.
        now = traffic if traffic.versions <= labelled else before
        self._registry.traffic[name] = now
        await self._retire_all_but({*best} | (labelled & now.versions), name, found)
        for number in traffic.versions - {*found}:
            failures[name, number] = f"{name} has a label for version {number}, and no such version"
        return refused

    async def _try(self, name: str, version: int, signature: Signature) -> list[str]:
        """Load a version unless it was tried as it is now, or changed since the last look."""
        settled = self._last.versions.get(name, {}).get(version) == signature
        if not settled or self._tried.get((name, version)) == signature:
            return []
        refused = []
        try:
            await self._load(name, version)
        except StartupError as error:
            refused = [str(error)]  # no error, which would keep what was loaded until then
        self._tried[name, version] = signature
        return refused

    async def _retire_all_but(self, kept: set[int], name: str, found: Mapping[int, Signature]) -> None:
        """Retire the versions that others supersede, and those that no folder has had in two looks."""
        gone = {number for other, number in self._registry.failures if other == name} - {*found}
        for number in (self._served(name) - kept) | gone:
            if number in found or number not in self._last.versions.get(name, {}):
                self._tried.pop((name, number), None)
                await self._retire(name, number)

    def _served(self, name: str) -> set[int]:
        return {one.version for one in self._registry if one.name == name}
