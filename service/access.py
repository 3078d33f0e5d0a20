"""What every door notes of a request: its id, its stages, its metrics, its log line."""

import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from service.metrics import Metrics
from service.scheduling.batch_queue import Priority

log = logging.getLogger("inferception.access")

_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass
class Trace:
    """What a route notes of its request. An HTTP route finds it as ``request.state.trace``."""

    request_id: str
    arrived: float = field(default_factory=time.perf_counter)
    model: str = ""
    key: str = ""  # the name of the API key
    best_priority: Priority = Priority.HIGH  # that the key allows
    stages: dict[str, float] = field(default_factory=dict)  # seconds

    @property
    def so_far(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.arrived

    def finished(self, stage: str) -> None:
        """Note that the stage which began at the request's arrival has ended."""
        self.stages[stage] = self.so_far

    def count(self, metrics: Metrics, path: str, status: int | str, *, by_key: bool) -> None:
        """Count a request before its answer is sent: its model may be retired once the answer is known."""
        metrics.requests.labels(self.model, path, status).inc()
        if by_key:
            metrics.key_requests.labels(self.key, status).inc()
        if self.model:
            for stage in ("read", "total"):
                if stage in self.stages:
                    metrics.stage.labels(stage).observe(self.stages[stage])

    def log(self, level: int, method: str, path: str, status: int | str) -> None:
        """Write the request's line."""
        if log.isEnabledFor(level):
            fields = {
                "method": method,
                "path": quote(path),  # a space would begin what looks like another field
                "status": status,
                "model": self.model,
                "request_id": self.request_id,
                **({"key": self.key} if self.key else {}),
                **{f"{stage}_ms": round(seconds * 1e3, 2) for stage, seconds in self.stages.items()},
            }
            log.log(level, "request", extra={"fields": fields})


def request_id(given: str) -> str:
    """Return the id that a client gave its request, or a new one if that is none."""
    return given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
