"""``python -m service serve | check | classify | key``."""

import argparse
import asyncio
import re
import sys
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from service import logs, tracing
from service.classify_photos import options
from service.errors import StartupError
from service.settings import ModelSettings, Settings, group_of

USAGE = "python -m service COMMAND [OPTION VALUE]...   Each option is also the variable INFERCEPTION_<OPTION>"
COMMANDS: dict[str, tuple[type[ModelSettings], str]] = {
    "serve": (Settings, "load the models and answer requests"),
    "check": (ModelSettings, "load every model, try it, and exit"),
    "classify": (ModelSettings, "classify photos, here or on a running server, and exit"),
}
S = TypeVar("S", bound=ModelSettings)


def main() -> None:
    """Run the command line. Exit codes: 0 done or drained, 1 cannot start or something failed, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Classify images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, usage=USAGE, help=text) for name, (_, text) in COMMANDS.items()}
    parsers["classify"].usage = USAGE.replace("COMMAND", "classify PHOTO...")
    options.add(parsers["classify"])
    sources = {name: _options(parsers[name], kind) for name, (kind, _) in COMMANDS.items()}
    commands.add_parser("key", help="make an API key, and its lines for the file api_keys").add_argument("name")
    arguments = parser.parse_args()
    command = vars(arguments).pop("command")
    if command == "key":
        from service.auth import KEY_NAME, new_key

        if not re.fullmatch(KEY_NAME, arguments.name):
            parser.error("the name of a key has letters, digits, _ and - alone")
        print(new_key(arguments.name))
        return
    asked = options.take(arguments, parsers["classify"]) if command == "classify" else None
    settings = _settings(arguments, COMMANDS[command][0], sources[command])
    logs.configure(settings.log_format)
    try:
        tracing.configure()
        if asked:
            from service.classify_photos.command import classify  # takes a third of a second to import

            sys.exit(classify(asked, settings))
        sys.exit(_serve(settings) if command == "serve" else asyncio.run(_check(settings)))
    except StartupError as error:
        print(f"can't start: {error}", file=sys.stderr)
        sys.exit(1)


def _settings(arguments: argparse.Namespace, kind: type[S], source: CliSettingsSource[S]) -> Settings:
    """Return all settings, of which the arguments may set those of ``kind``. A wrong one ends the process."""
    try:
        chosen = CliApp.run(kind, cli_args=arguments, cli_settings_source=source)
        return chosen if isinstance(chosen, Settings) else Settings(**chosen.model_dump())
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            print(f"--{name.replace('_', '-')} or INFERCEPTION_{name.upper()}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)


def _options(parser: argparse.ArgumentParser, settings: type[S]) -> CliSettingsSource[S]:
    """Add an option for each of ``settings`` to ``parser``, in their groups."""
    groups: dict[str, Any] = {}

    def add(_: Any, *names: str, **options: Any) -> None:
        title = group_of(options["dest"])
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        if re.fullmatch(r"\{.*null}|[^{]*", options["metavar"]):  # all but a list of choices
            options["metavar"] = "VALUE"
        options["help"] = re.sub(r" \(default: null\)| \(default factory: .*\)", "", options["help"])
        groups[title].add_argument(*names, **options)

    source: CliSettingsSource[S] = CliSettingsSource(settings, root_parser=parser, add_argument_method=add)
    source.env_ignore_empty = False  # an empty variable may come from a template, but an empty option is a mistake
    return source


def _serve(settings: Settings) -> int:
    from service.http.uvicorn_server import DrainingServer  # the web framework takes a third of a second to import
    from service.runtime import Runtime

    runtime, grpc = Runtime(settings), None
    if settings.grpc_port is not None:
        from service.grpc.server import serving  # so does gRPC, with 16 MB

        grpc = serving(runtime)
    server = DrainingServer(runtime, grpc)
    try:
        listener = server.config.bind_socket()  # before anything is loaded
        listener.listen(server.config.backlog)
    except SystemExit:  # uvicorn has logged why the address cannot be used
        return 1
    except OSError as error:
        print(f"can't start: {settings.host} port {settings.port}: {error}", file=sys.stderr)
        return 1
    server.run([listener])
    return int(server.failed)


async def _check(settings: Settings) -> int:
    from service.runtime import Runtime

    async with Runtime(settings) as runtime:
        try:
            await runtime.loading
        except StartupError:  # the runtime has logged it
            return 1
        for classifier in runtime.registry:
            place, times = classifier.placement, sorted(classifier.batch_s.items())
            print(
                f"ok    {classifier!r}  {place.precision} on {place.provider} ({place.reason}); "
                f"{len(classifier.manifest.golden)} golden samples right; "
                f"milliseconds by batch size: {', '.join(f'{size}: {seconds * 1e3:.0f}' for size, seconds in times)}"
            )
        for (name, version), reason in runtime.registry.failures.items():
            print(f"FAIL  {name}/{version}  {reason}")
        return int(bool(runtime.registry.failures))


if __name__ == "__main__":
    main()
