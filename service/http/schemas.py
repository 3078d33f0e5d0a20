"""Bodies of requests and responses, as ``/docs`` shows them.

Answers of ``/classify`` and problems are plain dicts: made by ourselves, they need no validation that every request
would wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import TypedDict

from service.classifier import Classification, Classifier
from service.inference.manifest import Prediction


class Problem(TypedDict):
    """An error, as ``application/problem+json`` (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:inferception:error:invalid-image"])]
    title: Annotated[str, Field(examples=["Bad Request"])]
    status: Annotated[int, Field(examples=[400])]
    detail: str


class Timing(TypedDict):
    """Where the time went, in milliseconds; ``total`` runs from the request's arrival to its answer."""

    decode: float
    queue: float
    infer: float
    total: float


class ImageResult(TypedDict):
    """The answer to one image, most probable class first."""

    model: str
    version: int
    precision: str
    trained: Annotated[bool, Field(description="false: random weights, the labels mean nothing")]
    predictions: list[Prediction]
    timing_ms: Timing
    batch_size: Annotated[int, Field(description="images that ran together with this one, itself included")]


class FileError(TypedDict):
    """What was wrong with one file among several."""

    file: str
    error: Problem


class FileResult(ImageResult):
    """The answer to one file among several."""

    file: str


class Results(TypedDict):
    """One entry a file, in the order they were sent."""

    results: list[FileResult | FileError]


class ModelInfo(BaseModel):
    """A model as it is served, or why it is not."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: int
    ready: bool
    reason: str = Field(description="why it is not ready, or how its provider was chosen")
    provider: str | None = None
    nodes: dict[str, int] | None = Field(default=None, description="nodes of the graph by the provider that runs them")
    precision: str | None = None
    trained: bool | None = None
    labels: int | None = Field(default=None, description="number of classes")
    weights: str | None = None
    batch_ms: dict[int, float] | None = Field(default=None, description="milliseconds by batch size, at warm-up")


class Models(BaseModel):
    """All models in the repository."""

    models: list[ModelInfo]


class Health(BaseModel):
    """Alive or ready."""

    status: str


def json_response(
    body: Mapping[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """Return ``body``, all of whose numbers are finite, as JSON.

    By pydantic's encoder: starlette's JSONResponse takes longer, and every request waits for it.
    """
    return Response(to_json(body), status, headers, media_type)


def image_result(classifier: Classifier, answer: Classification, total_s: float) -> ImageResult:
    """Describe ``answer``; ``total_s`` is the time since the request arrived, in seconds."""
    return ImageResult(
        model=classifier.manifest.name,
        version=classifier.manifest.version,
        precision=classifier.placement.precision,
        trained=classifier.manifest.trained,
        predictions=answer.predictions,
        timing_ms=Timing(
            decode=_milliseconds(answer.decode_s),
            queue=_milliseconds(answer.queue_s),
            infer=_milliseconds(answer.infer_s),
            total=_milliseconds(total_s),
        ),
        batch_size=answer.batch_size,
    )


def model_info(classifier: Classifier) -> ModelInfo:
    """Describe a loaded model."""
    return ModelInfo(
        name=classifier.manifest.name,
        version=classifier.manifest.version,
        ready=classifier.unready is None,
        reason=classifier.unready or classifier.placement.reason,
        provider=classifier.placement.provider,
        nodes=classifier.placement.nodes,
        precision=classifier.placement.precision,
        trained=classifier.manifest.trained,
        labels=len(classifier.labels),
        weights=classifier.manifest.weights.source,
        batch_ms={size: _milliseconds(seconds) for size, seconds in sorted(classifier.warm_up_s.items())},
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
