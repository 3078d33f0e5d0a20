"""``python -m tests.load``: put the server under load and say which promises it keeps."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path

from export.photos import labelled_photos
from service.bench.report import machine
from tests.load.bench import Plan
from tests.load.client import Sample
from tests.load.report import Report
from tests.load.scenarios import SCENARIOS


def main() -> None:
    """Run the scenarios. Exit codes: 0 all bars met (or only tried, with --quick), 1 some not, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="Load tests; about 40 minutes.")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO",
                        help=f"any of {', '.join(SCENARIOS)}")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds each, to see that all works; bars don't count"
    )
    parser.add_argument("--model", default=os.environ.get("INFERCEPTION_DEFAULT_MODEL", "xception"))
    parser.add_argument("--reports", type=Path, default=Path("reports/load"), help="folder for JSON and plots")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx2").setLevel(logging.WARNING)

    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photos = [Sample(photo.data, photo.label) for photo in labelled_photos()]
    plan = Plan(repository, photos, arguments.model, arguments.quick)
    about: dict[str, object] = {"model": plan.model, "quick": plan.quick, "machine": machine()}
    reports: list[Report] = []
    for name in arguments.only:
        start = time.monotonic()
        print(f"== {name}", flush=True)
        for report in asyncio.run(SCENARIOS[name](plan)):
            report.write(arguments.reports, about)
            print(report.table(), flush=True)
            reports.append(report)
        print(f"   took {time.monotonic() - start:.0f} s", flush=True)
    failed = [report.name for report in reports if not report.passed]
    print(f"\n{len(reports) - len(failed)} of {len(reports)} passed; reports in {arguments.reports}")
    if failed:
        print(f"not passed: {', '.join(failed)}" + (", which means nothing with --quick" if plan.quick else ""))
    sys.exit(1 if failed and not plan.quick else 0)


if __name__ == "__main__":
    main()
