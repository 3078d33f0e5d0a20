"""Shapes: how the number of Locust's users changes up to ``--users``, within the whole run of ``--run-time``.

Load the shapes beside the locustfile (``-f bench/locust/locustfile.py,bench/locust/shapes.py``). ``--shape`` chooses a
shape. With ``--class-picker``, the web page offers the choice.
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape, User, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment


class Shape(LoadTestShape):
    """Stages of equal length, each with a share of the users. ``seconds`` is the length of a run without --run-time."""

    abstract = True
    use_common_options = True
    seconds: ClassVar[float]
    shares: ClassVar[tuple[float, ...]]

    def tick(self) -> tuple[int, float] | tuple[int, float, list[type[User]] | None] | None:
        """Return the number of users and the number of users to start a second, or None at the end."""
        options = self.runner.environment.parsed_options if self.runner else None
        assert options is not None
        stage = int(self.get_run_time() / (options.run_time or self.seconds) * len(self.shares))
        if stage >= len(self.shares):
            return None
        users = max(1, round((options.num_users or 1) * self.shares[stage]))
        return users, users


class Steps(Shape):
    """25, 50, 75 and 100 % of the users. The capacity is at the step where latency rises steeply."""

    seconds = 240
    shares = (0.25, 0.5, 0.75, 1.0)


class Spike(Shape):
    """10 % of the users, suddenly all, then 10 % again. The shape shows how overload begins and how fast it ends."""

    seconds = 150
    shares = (0.1, 0.1, 1.0, 0.1, 0.1)


class Soak(Shape):
    """All users for a long time. The shape shows whether memory or latency grows slowly."""

    seconds = 3600
    shares = (1.0,)


@events.init_command_line_parser.add_listener
def _add_option(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--shape", choices=[shape.__name__ for shape in (Steps, Spike, Soak)], env_var="LOCUST_SHAPE",
        include_in_web_ui=False, help="how the number of users changes (default: --users throughout)",
    )  # fmt: skip


@events.init.add_listener
def _choose(environment: Environment, **_: Any) -> None:
    # Without this listener, Locust would always use the first shape of a locustfile.
    chosen = environment.parsed_options.shape if environment.parsed_options else None
    environment.shape_class = (environment.available_shape_classes or {})[chosen] if chosen else None
    if environment.shape_class:
        environment.shape_class.runner = environment.runner
