"""``python -m service serve | check``."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from typing import Any

import uvicorn
from pydantic import ValidationError

from service import logs
from service.app import create_app
from service.errors import StartupError
from service.registry import Registry
from service.server import DrainingServer
from service.settings import Settings


def main() -> None:
    """Run the command line. Exit codes: 0 done or drained, 1 can't start or check failed, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Classify images over HTTP.")
    parser.add_argument("command", choices=["serve", "check"], help="check loads every model, tries it and exits")
    for name, setting in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, help=setting.description, default=argparse.SUPPRESS, metavar="VALUE")
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    settings = _settings(arguments)
    logs.configure(settings.log_format)
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
    registry = Registry(settings)
    exit_code = 0

    def started(error: BaseException | None) -> None:
        nonlocal exit_code
        if error is None:
            _announce(listener, registry)
            return
        exit_code = 1
        server.should_exit = True
        logging.getLogger("inferception").error("can't start: %s", error, exc_info=not isinstance(error, StartupError))

    app = create_app(settings, registry, started)
    config = uvicorn.Config(
        app,
        settings.host,
        settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        limit_concurrency=settings.max_connections,
    )
    server = DrainingServer(config, registry.drain, settings.drain_grace_ms / 1e3)
    listener = config.bind_socket()
    server.run([listener])
    return exit_code


def _announce(listener: socket.socket, registry: Registry) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{host}:{port}"
    names = sorted({classifier.manifest.name for classifier in registry})
    print(f"\n  Inferception is ready at {url}  ({', '.join(names)}; API at {url}/docs)")
    print(f"  curl -F file=@photo.jpg '{url}/classify?model={names[-1]}&top_k=3'\n", flush=True)


def _check(settings: Settings) -> int:
    registry = Registry(settings)
    try:
        registry.load()
    except StartupError as error:
        print(f"can't start: {error}", file=sys.stderr)
        return 1
    for classifier in registry:
        times = ", ".join(f"{size}: {seconds * 1e3:.0f}" for size, seconds in classifier.warm_up_s.items())
        print(
            f"ok    {classifier!r}  {classifier.variant.precision} on {classifier.session.provider} "
            f"({classifier.session.reason}); {len(classifier.manifest.golden)} golden samples right; "
            f"milliseconds by batch size: {times}"
        )
    for name, reason in registry.failures.items():
        print(f"FAIL  {name}  {reason}")
    registry.close()
    return 1 if registry.failures else 0


if __name__ == "__main__":
    main()
