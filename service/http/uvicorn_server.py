"""uvicorn with a drain: the first signal lets accepted work finish, the second signal exits at once."""

import asyncio
import gc
import logging
import math
import os
import resource
import shlex
import socket
import threading
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import FrameType

import uvicorn

from service.errors import StartupError
from service.http.app import create_app
from service.http.uvicorn_connection import bounded_connection
from service.runtime import Runtime

log = logging.getLogger("inferception")

_CLOSING_S = 5.0  # the last batch ends, and models go


def _connections(wanted: int) -> int:
    """Let this process open all the files that it may, and return how many of ``wanted`` connections that allows.

    Twice as many connections can be open. A quarter of the files is left for models and all else.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed = min(wanted, most * 3 // 8)
    if allowed < wanted:
        log.warning("max_connections is %d, not %d: this process may open %d files (ulimit -n)", allowed, wanted, most)
    return allowed


class DrainingServer(uvicorn.Server):
    """Serves ``runtime`` until it gets SIGTERM or SIGINT, or until the runtime fails to load.

    A signal makes the runtime drain. The server goes on for ``drain_grace_ms`` while load balancers notice, then stops
    as uvicorn does: it takes no new connections and answers every request that it accepted. What is still open
    ``body_timeout_ms`` after the longest deadline is dropped. A batch that has not returned 5 s later never will: the
    process then exits with code 1.

    ``grpc`` serves gRPC between its entry, which returns the port, and its exit, which finishes what it accepted.
    """

    def __init__(self, runtime: Runtime, grpc: AbstractAsyncContextManager[int] | None = None) -> None:
        settings = runtime.settings
        arrival_s = 2 * settings.body_timeout_ms / 1e3
        config = uvicorn.Config(
            create_app(runtime),
            settings.host,
            settings.port,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            root_path=settings.root_path or "",
            proxy_headers=settings.trusted_proxies is not None,
            forwarded_allow_ips=settings.trusted_proxies,
            ws="none",
            http=bounded_connection(_connections(settings.max_connections), arrival_s, runtime.metrics),
            timeout_graceful_shutdown=math.ceil((settings.max_timeout_ms + settings.body_timeout_ms) / 1e3),
        )
        super().__init__(config)
        self.failed = False
        self._runtime = runtime
        self._grpc, self._open = grpc, AsyncExitStack()
        self._grpc_port: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and watch how the models load."""
        if self._grpc is not None:
            try:
                self._grpc_port = await self._open.enter_async_context(self._grpc)
            except StartupError as error:
                log.error("can't start: %s", error)
                self.failed = self.should_exit = True
                return
        await super().startup(sockets)
        self._runtime.loading.add_done_callback(self._loaded)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, over HTTP and gRPC at the same time, and let the models go."""
        closing = asyncio.create_task(self._open.aclose())
        self.server_state.tasks.add(closing)  # uvicorn waits for these tasks
        closing.add_done_callback(self.server_state.tasks.discard)
        await super().shutdown(sockets)

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        if loading.cancelled() or self._runtime.registry.draining:
            return
        if loading.exception() is not None:  # the runtime has logged it
            self.failed = self.should_exit = True
            return
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not walk it
        # For the person who started the server. If nobody reads the pipe, only this thread waits.
        threading.Thread(target=os.write, args=(1, os.fsencode(self._announcement())), daemon=True).start()

    def _announcement(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nobody can ask "all addresses"
        host = f"[{host}]" if ":" in host else host
        url = f"http://{host}:{port}"
        if (unready := self._runtime.registry.unready) is not None:
            return f"\n  Inferception listens at {url}, but it is not ready: {unready}\n"
        grpc = f", gRPC at {host}:{self._grpc_port}" if self._grpc_port else ""
        lines = [f"\n  Inferception is ready at {url}  (API at {url}/docs{grpc}). Try it:\n"]
        for classifier in self._runtime.registry:
            sample = shlex.quote(f"file=@{classifier.folder / classifier.manifest.golden[0].file}")
            lines.append(f"    curl -F {sample} '{url}/classify?model={classifier.name}&top_k=2'")
        return "\n".join([*lines, "\n"])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. uvicorn would raise the signal again after it stopped, but a good drain is exit code 0."""
        if self._runtime.registry.draining:
            os._exit(128 + sig)
        self._runtime.drain()
        log.info("draining: new work gets 503; a second signal exits at once")
        last = threading.Timer(self._longest_drain_s(), os._exit, (1,))
        last.daemon = True
        last.start()
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._runtime.settings.drain_grace_ms / 1e3, self._stop)

    def _longest_drain_s(self) -> float:
        """Return when only a batch that never returns can keep the process from ending, in seconds."""
        return self._runtime.settings.drain_grace_ms / 1e3 + (self.config.timeout_graceful_shutdown or 0) + _CLOSING_S

    def _stop(self) -> None:
        self.should_exit = True
