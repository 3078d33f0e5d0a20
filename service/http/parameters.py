"""What a request to ``/classify`` may ask for, in its query and in its headers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from service.inference.traffic import Label
from service.scheduling.batch_queue import Priority


class Asked(BaseModel):
    """The query."""

    model: str | None = Field(None, description="the model's name; the default model if left out")
    version: Annotated[int, Field(ge=1)] | Label | None = Field(
        None,
        description="the model's version, or its label: stable or canary; if left out, the one served by default",
    )
    top_k: int | None = Field(None, ge=1, description="number of classes to return; 5, or all if there are fewer")
    timeout_ms: int | None = Field(None, ge=1, description="milliseconds after which the client gives up")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_asked_in_vain(cls, given: dict[str, Any]) -> dict[str, Any]:
        if unknown := given.keys() - cls.model_fields:
            names = {"unknown": ", ".join(sorted(unknown)), "known": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown_name", "nothing reads {unknown}: there is {known}", names)
        return given


class AskedInHeaders(BaseModel):
    """The headers."""

    x_request_timeout_ms: int | None = Field(None, ge=1, description="the same as timeout_ms")
    x_priority: Literal["high", "normal", "low"] = Field("normal", description="low is shed first")

    @property
    def priority(self) -> Priority:
        """The priority in the scheduler's terms."""
        return Priority[self.x_priority.upper()]
