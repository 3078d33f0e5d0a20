"""What one served version has done since it was loaded, in the terms of Triton's statistics: counts and nanoseconds."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Duration:
    """How often something was done, and the nanoseconds that it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more time."""
        self.count += 1
        self.ns += max(0, round(seconds * 1e9))


@dataclass
class Batches:
    """The batches of one size: decoding their images, and running them."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)


@dataclass
class Statistics:
    """Durations of requests by outcome and by stage, and of batches by the number of their images.

    ``success`` and ``fail`` are whole requests. A request that was refused for load is neither. ``compute_input`` is
    decoding, ``compute_output`` is describing the answer. ``cache_hit`` is the look-up of requests whose images were
    all remembered, and ``cache_miss`` that of the other requests whose images were looked up.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    images: int = 0
    last_ms: int = 0  # when an image was last answered, in milliseconds since 1970
    batches: defaultdict[int, Batches] = field(default_factory=lambda: defaultdict(Batches))

    def answered(self, images: int, stages: Mapping[str, float]) -> None:
        """Count a request that was answered and had ``images`` run, by the seconds that it spent in each stage."""
        self.images += images
        self.last_ms = time.time_ns() // 1_000_000
        if "cache" in stages:
            (self.cache_miss if images else self.cache_hit).add(stages["cache"])
        if images:
            self.compute_input.add(stages["decode"])
            self.queue.add(stages["queue"])
            self.compute_infer.add(stages["infer"])

    def ran(self, images: int, decode_s: float, infer_s: float) -> None:
        """Count a batch that was answered."""
        self.batches[images].compute_input.add(decode_s)
        self.batches[images].compute_infer.add(infer_s)
