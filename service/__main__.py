"""``python -m service serve | check | bench``."""

from __future__ import annotations

import argparse
import gc
import logging
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service import logs, tracing
from service.errors import ServiceError, StartupError
from service.registry import Registry
from service.settings import Settings

log = logging.getLogger("inferception")


def main() -> None:
    """Run the command line. Exit codes: 0 done or drained, 1 can't start or check failed, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Classify images over HTTP.")
    parser.add_argument(
        "command",
        choices=["serve", "check", "bench"],
        help="check loads every model, tries it and exits; bench measures for minutes how fast this machine is",
    )
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="for bench: JPEG files, in place of golden samples"
    )
    parser.add_argument(
        "--reports", type=Path, metavar="FOLDER", help="for bench: where to write bench.json and bench.html"
    )
    for name, setting in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, help=setting.description, default=argparse.SUPPRESS, metavar="VALUE")
    arguments = vars(parser.parse_args())
    command, photos, reports = (arguments.pop(name) for name in ("command", "photos", "reports"))
    settings = _settings(arguments)
    logs.configure(settings.log_format)
    if command == "bench":
        sys.exit(_bench(settings, photos, reports))
    sys.exit(_serve(settings) if command == "serve" else _check(settings))


def _settings(arguments: dict[str, Any]) -> Settings:
    try:
        return Settings(**arguments)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            print(f"--{name.replace('_', '-')} or INFERCEPTION_{name.upper()}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)


def _serve(settings: Settings) -> int:
    try:
        tracing.configure()
    except StartupError as error:
        log.error("can't start: %s", error)
        return 1
    registry = Registry(settings)
    loader = ThreadPoolExecutor(1, "load")
    loading = loader.submit(registry.load)
    # Models load while the web framework is imported, which takes a third of a second.
    import uvicorn

    from service.http.app import create_app
    from service.http.uvicorn_connection import bounded_connection
    from service.http.uvicorn_server import DrainingServer

    config = uvicorn.Config(
        create_app(settings, registry),
        settings.host,
        settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        http=bounded_connection(settings.max_connections, 2 * settings.body_timeout_ms / 1e3, registry.metrics),
    )
    server = DrainingServer(config, registry.drain, settings.drain_grace_ms / 1e3)
    listener = config.bind_socket()
    listener.listen(config.backlog)
    failed = False

    def loaded(loading: Future[None]) -> None:
        nonlocal failed
        error = loading.exception()
        if error is None:
            gc.collect()
            gc.freeze()  # what is there now stays: later collections needn't walk it
            _announce(listener, registry)
            return
        failed = True
        log.error("can't start: %s", error, exc_info=None if isinstance(error, StartupError) else error)
        server.should_exit = True

    loading.add_done_callback(loaded)
    server.run([listener])
    return int(failed)


def _announce(listener: socket.socket, registry: Registry) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{host}:{port}"
    print(f"\n  Inferception is ready at {url}  (API at {url}/docs). Try it:\n")
    for classifier in registry:
        sample = classifier.folder / classifier.manifest.golden[0].file
        print(f"    curl -F file=@{sample} '{url}/classify?model={classifier.manifest.name}&top_k=2'")
    print(flush=True)


def _check(settings: Settings) -> int:
    registry = Registry(settings)
    try:
        registry.load()
    except StartupError as error:
        print(f"can't start: {error}", file=sys.stderr)
        return 1
    for classifier in registry:
        times = ", ".join(f"{size}: {seconds * 1e3:.0f}" for size, seconds in sorted(classifier.warm_up_s.items()))
        print(
            f"ok    {classifier!r}  {classifier.placement.precision} on {classifier.placement.provider} "
            f"({classifier.placement.reason}); {len(classifier.manifest.golden)} golden samples right; "
            f"milliseconds by batch size: {times}"
        )
    for name, reason in registry.failures.items():
        print(f"FAIL  {name}  {reason}")
    registry.close()
    return 1 if registry.failures else 0


def _bench(settings: Settings, photos: Path | None, reports: Path | None) -> int:
    from service.bench.run import run

    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")) if photos else []
    if photos and not files:
        print(f"can't measure: no JPEG file in {photos}", file=sys.stderr)
        return 1
    try:
        report = run(settings, [path.read_bytes() for path in files])
    except (ServiceError, OSError, RuntimeError) as error:
        print(f"can't measure: {error}", file=sys.stderr)
        return 1
    print(report.table())
    if reports is not None:
        report.write(reports)
        print(f"reports in {reports}/bench.json and {reports}/bench.html")
    return 0


if __name__ == "__main__":
    main()
