"""Labels of a model's versions: ``stable`` and ``canary``, in a small file beside the versions."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import InvalidManifest, Unavailable

FILE = "traffic.json"
Label = Literal["stable", "canary"]


class Traffic(BaseModel):
    """Which version gets the requests that name none.

    ``stable`` gets them, or the highest version that is not the canary if there is no ``stable``. ``canary`` gets
    ``canary_share`` of them, 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stable: int | None = Field(None, ge=1)
    canary: int | None = Field(None, ge=1)
    canary_share: float = Field(0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _labels_are_of_use(self) -> Self:
        if self.canary is None and self.canary_share:
            raise ValueError("canary_share needs a canary")
        if self.canary is not None and self.canary == self.stable:
            raise ValueError("one version can't be both stable and canary")
        return self

    def moved(self, before: Self, served: Collection[int]) -> Self:
        """Return these labels, but each whose version is not ``served`` stays where it was ``before``."""

        def lost(version: int | None) -> bool:
            return version is not None and version not in served

        stable = before.stable if lost(self.stable) else self.stable
        canary = before if lost(self.canary) else self
        if lost(canary.canary) or canary.canary == stable:
            return type(self)(stable=stable)
        return type(self)(stable=stable, canary=canary.canary, canary_share=canary.canary_share)

    @property
    def versions(self) -> set[int]:
        """The versions that have a label."""
        return {version for version in (self.stable, self.canary) if version is not None}


def read_traffic(model: Path) -> Traffic:
    """Return the labels of a model's versions, without a file none. Raises InvalidManifest for a wrong file."""
    path = model / FILE
    try:
        return Traffic.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Traffic()
    except OSError as error:
        raise InvalidManifest(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidManifest(f"{path} is wrong: {problems}") from error


def write_traffic(model: Path, traffic: Traffic) -> None:
    """Write the labels of a model's versions, at once or not at all. Raises Unavailable when that fails."""
    part = model / f".{FILE}.part"
    try:
        part.write_text(traffic.model_dump_json(exclude_defaults=True))
        part.replace(model / FILE)
    except OSError as error:
        raise Unavailable(f"can't write {model / FILE}: {error.strerror}") from error
