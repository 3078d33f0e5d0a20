"""``python -m bench limits | classify | service | cache | triton | load | ...``: measure, print, and write reports."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from bench import cache, classify, family, idle, limits, plots, saturated, triton
from bench.report import Report
from bench.repository import default_model, read_models
from bench.scenarios import SCENARIOS
from bench.under_load import Plan
from service.errors import ServiceError
from service.settings import Settings

log = logging.getLogger("bench")

Command = Callable[[argparse.Namespace, Settings], Iterator[Report]]
EPILOG = "The service reads its settings from variables INFERCEPTION_<NAME>; see `python -m service serve --help`."


def main() -> None:
    """Run the command line. Exit codes: 0 measured, 1 measuring failed or a bar was not met, 2 bad usage."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    sys.exit(_run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.reports / arguments.command
    reports = list[Report]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for report in arguments.measure(arguments, Settings()):
            report.write(folder)
            print(report.text(), flush=True)
            reports.append(report)
    except ValidationError as error:
        for problem in error.errors():
            print(f"INFERCEPTION_{str(problem['loc'][0]).upper()}: {problem['msg']}", file=sys.stderr)
        return 2
    except (ServiceError, OSError, RuntimeError, ImportError) as error:
        print(f"can't measure: {error}", file=sys.stderr)
        return 1
    print(f"reports in {folder}")
    if not plots.AVAILABLE and any(report.plots for report in reports):
        print("no plots were written: matplotlib is not installed")
    failed, quick = [report.title for report in reports if not report.passed], getattr(arguments, "quick", False)
    if failed:
        print(f"not passed: {', '.join(failed)}" + (", which means nothing with --quick" if quick else ""))
    return int(bool(failed) and not quick)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the models and the service.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    reports, quick, photos = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    reports.add_argument("--reports", type=Path, default=Path("reports"), metavar="FOLDER",
                         help="write JSON and plots to FOLDER/<command> (default: reports)")  # fmt: skip
    quick.add_argument(
        "--quick", action="store_true", help="finish in seconds, to test that all works; the figures mean little"
    )
    photos.add_argument("--photos", type=Path, metavar="FOLDER",
                        help="folder of <label>/<name>.jpg (default: .cache/photos, else golden samples)")  # fmt: skip

    def add(name: str, measure: Command, text: str, *options: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=options, help=text, description=f"{text}.", epilog=EPILOG)
        command.set_defaults(measure=measure)
        return command

    asks = (photos, reports, quick)
    add("limits", _limits, "every model without HTTP: the session alone, decoding alone, both side by side", *asks)
    add("family", _family, "every model beside the default model: the sessions alone, in turns", *asks)
    add("classify", _classify, "python -m service classify beside the offline limit, with the default model", *asks)
    add("service", _service, "the service: its start, idle with every model, saturated with the default model", *asks)
    add("cache", _cache, "what remembered answers gain and cost, with the default model", *asks)
    beside = add("triton", _triton, "pixels over the Open Inference Protocol, beside the session and Triton", *asks)
    beside.add_argument("--triton", type=Path, metavar="FOLDER",
                        help="folder of a real Triton, as /opt/tritonserver (default: Triton is left out)")  # fmt: skip
    load = add("load", _load, "the service under load, and which promises it keeps (takes 40 minutes)", *asks)
    load.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO",
                      help=f"scenarios: any of {', '.join(SCENARIOS)} (default: all)")  # fmt: skip
    # The service's container image contains neither of these two modules.
    if importlib.util.find_spec("bench.rewrites"):
        rewrites = add(
            "rewrites", _rewrites, "the speed gained by each rewrite of export/fuse.py; needs PyTorch", reports, quick
        )
        rewrites.add_argument("models", nargs="*", metavar="MODEL", help="architectures to measure (default: all)")
    if importlib.util.find_spec("bench.gpu"):
        from bench.gpu.command import add_parts

        add_parts(commands, [photos, reports])
    return parser


def _limits(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    for model in read_models(settings, arguments.photos).values():
        yield limits.measure(model, settings, quick=arguments.quick)


def _family(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    yield family.measure(models, default_model(models, settings), settings, quick=arguments.quick)


def _classify(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    yield classify.measure(default_model(models, settings), settings, quick=arguments.quick)


def _service(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    chosen = default_model(models, settings)
    yield idle.measure(models, settings, quick=arguments.quick)
    yield saturated.measure(chosen, settings, quick=arguments.quick)


def _cache(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    yield cache.measure(default_model(models, settings), settings, quick=arguments.quick)


def _triton(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    yield triton.measure(default_model(models, settings), settings, arguments.triton, quick=arguments.quick)


def _load(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    models = read_models(settings, arguments.photos)
    plan = Plan(settings, models, default_model(models, settings).name, arguments.quick)
    for name in arguments.only:
        log.info("scenario %s", name)
        yield from asyncio.run(SCENARIOS[name](plan))


def _rewrites(arguments: argparse.Namespace, settings: Settings) -> Iterator[Report]:
    from bench import rewrites

    for model in arguments.models or rewrites.MODELS:
        yield rewrites.measure(model, settings, quick=arguments.quick)


if __name__ == "__main__":
    main()
