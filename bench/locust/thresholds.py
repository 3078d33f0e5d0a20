"""Thresholds of a Locust run. The exit code is 1 if the run breaks one.

Only Locust's own statistics are used, so that a run in several processes is judged as a whole.
"""

from __future__ import annotations

import logging
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import StatsEntry

REFUSED = "refused (429)"  # the row of all refusals, which count neither as answers nor as failures
WRONG_LABEL = "wrong label"  # the message of a failure by a wrong label begins so

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Thresholds", "Limits of a headless run. The exit code is 1 if one is broken.")
    group.add_argument(
        "--max-failures", type=float, default=0.0, metavar="SHARE", env_var="LOCUST_MAX_FAILURES",
        help="share of requests that may fail, 0 to 1; refusals don't count (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--max-p99-ms", type=float, default=10_000.0, metavar="MS", env_var="LOCUST_MAX_P99_MS",
        help="99th percentile of the latency of all but refusals (default: 10000)",
    )  # fmt: skip
    group.add_argument(
        "--max-wrong-labels", type=int, default=0, metavar="N", env_var="LOCUST_MAX_WRONG_LABELS",
        help="number of answers that may name a wrong label (default: 0)",
    )  # fmt: skip


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    if options is None or not options.headless or runner is None or isinstance(runner, WorkerRunner):
        return
    broken = _broken(environment)
    for what in broken:
        log.error("threshold broken: %s", what)
    environment.process_exit_code = 1 if broken or runner.exceptions else 0  # Locust has logged a user's exception


def _broken(environment: Environment) -> list[str]:
    """Describe every threshold that the run broke."""
    options, stats = environment.parsed_options, environment.stats
    assert options is not None
    answered = StatsEntry(stats, "answered", "")
    for (name, _), entry in stats.entries.items():
        if name != REFUSED:
            answered.extend(entry)
    if not answered.num_requests:
        return ["no request was answered"]
    wrong = sum(error.occurrences for error in stats.errors.values() if WRONG_LABEL in str(error.error))
    p99 = answered.get_response_time_percentile(0.99)
    checks = {
        f"{answered.fail_ratio:.2%} of the requests failed": answered.fail_ratio <= options.max_failures,
        f"p99 is {p99} ms": p99 <= options.max_p99_ms,
        f"{wrong} answers had a wrong label": wrong <= options.max_wrong_labels,
    }
    return [what for what, kept in checks.items() if not kept]
