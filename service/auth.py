"""API keys: who may ask, how often, and with which priority."""

import hashlib
import hmac
import secrets
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from service.access import Trace
from service.errors import Forbidden, RateExceeded, StartupError, Unauthorized
from service.scheduling.batch_queue import Priority

KEY_NAME = "[A-Za-z0-9_-]+"  # has no need of quotes in TOML, a log line or a metric


def _rates(text: str) -> list[RateLimitItem]:
    rates = parse_many(text)
    if not all(rate.amount for rate in rates):
        raise ValueError("a rate of 0 lets nothing in")
    return rates


class Key(BaseModel):
    """What is known of a key: not the key."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")  # enough for 256 random bits: only passwords need a slow hash
    rate: Annotated[list[RateLimitItem], BeforeValidator(_rates)] = []  # as "20/second; 1000/hour": all of them hold
    priority: Literal["high", "normal", "low"] = "high"  # the best that it may ask for
    admin: bool = False


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys in a TOML file, by name: a table each. Raises StartupError that says what is wrong."""
    try:
        named = TypeAdapter(dict[Annotated[str, Field(pattern=f"^{KEY_NAME}$")], Key])
        keys = named.validate_python(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise StartupError(f"api_keys: {path} is wrong: {problems}") from None
    except (OSError, ValueError) as error:
        raise StartupError(f"api_keys: can't read {path}: {error}") from error
    if not keys:
        raise StartupError(f"api_keys: {path} has no key, so nobody could ask")
    owners: dict[str, str] = {}
    for name, key in keys.items():
        if (owner := owners.setdefault(key.sha256, name)) != name:
            raise StartupError(f"api_keys: {path} is wrong: {owner} and {name} have the same key")
    return keys


def new_key(name: str) -> str:
    """Return a new key, and the lines of the file that let it in. ``name`` matches KEY_NAME."""
    key = secrets.token_urlsafe(32)
    return f'{key}\n\n[{name}]\nsha256 = "{_sha256(key)}"'


@dataclass(frozen=True)
class Keys:
    """The keys of this process, by name, and how often each was used. All doors share one object."""

    by_name: Mapping[str, Key]
    _rates: MovingWindowRateLimiter = field(default_factory=lambda: MovingWindowRateLimiter(MemoryStorage()))

    def identify(self, trace: Trace, headers: Mapping[str, str]) -> None:
        """Note in ``trace`` whose key a request has, by its headers in lower case. Raises Unauthorized.

        Each key is compared to its end, so that no time tells how much of it is right.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # A gateway may have an Authorization of its own.
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        sha256 = _sha256(given)
        found = [name for name, key in self.by_name.items() if hmac.compare_digest(key.sha256, sha256)]
        if not found:
            what = "the API key is unknown" if given else "an API key is needed"
            raise Unauthorized(f"{what}: send Authorization: Bearer KEY, or X-API-Key: KEY")
        trace.key = found[0]
        trace.best_priority = Priority[self.by_name[trace.key].priority.upper()]

    def demand_admin(self, trace: Trace) -> None:
        """Raise Forbidden unless the key is an administrator's."""
        if not self.by_name[trace.key].admin:
            raise Forbidden("this needs the key of an administrator")

    def count(self, trace: Trace) -> None:
        """Count a use of the key. Raises RateExceeded."""
        for rate in self.by_name[trace.key].rate:
            if not self._rates.hit(rate, trace.key):
                again = self._rates.get_window_stats(rate, trace.key).reset_time - time.time()
                raise RateExceeded(f"the key {trace.key} may ask {rate}", retry_after=max(0.0, again))


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
