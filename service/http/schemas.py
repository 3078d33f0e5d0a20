"""Bodies of responses, as ``/docs`` shows them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from service.classifier import Classifier
from service.errors import ServiceError, without_folders
from service.http.problems import Problem, problem_of
from service.inference.image import Preprocessing
from service.inference.manifest import Agreement, Input, Prediction
from service.scheduling.admission import Answer


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
    batch_size: Annotated[
        int, Field(description="images that ran together, this one included; 0 for a remembered answer")
    ]


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


class VariantInfo(TypedDict):
    """A file of the version, and how far its answers were from the reference's when it was exported."""

    precision: str
    agreement: Agreement


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
    input: Input | None = None
    preprocessing: Preprocessing | None = None
    variants: list[VariantInfo] | None = None
    golden: list[Prediction] | None = Field(
        default=None, description="the most probable class of each golden sample, as the export recorded it"
    )


class Models(BaseModel):
    """All models in the repository."""

    models: list[ModelInfo]


class Figure(TypedDict):
    """One figure at ``/metrics``."""

    labels: dict[str, str]
    value: float


class Live(TypedDict):
    """Figures of now, to be compared with those of a moment later."""

    time_s: Annotated[float, Field(description="seconds, on a clock of the server's own")]
    figures: Annotated[dict[str, list[Figure]], Field(description="by the name that the figure has at /metrics")]


class Health(BaseModel):
    """Alive or ready."""

    status: str


def image_result(classifier: Classifier, answer: Answer, top_k: int, total_s: float) -> ImageResult:
    """Describe ``answer`` by its ``top_k`` classes; ``total_s`` is the time since the request arrived, in seconds."""
    return ImageResult(
        model=classifier.name,
        version=classifier.version,
        precision=classifier.placement.precision,
        trained=classifier.manifest.trained,
        predictions=classifier.top(answer.probabilities, top_k),
        timing_ms=Timing(
            decode=_milliseconds(answer.stages.get("decode", 0.0)),
            queue=_milliseconds(answer.stages.get("queue", 0.0)),
            infer=_milliseconds(answer.stages.get("infer", 0.0)),
            total=_milliseconds(total_s),
        ),
        batch_size=answer.batch_size,
    )


def image_results(
    classifier: Classifier, names: Sequence[str], answers: Sequence[Answer | ServiceError], top_k: int, total_s: float
) -> Results:
    """Describe the answers to several files, each with its file name; a file that failed has its problem."""
    results: list[FileResult | FileError] = []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, ServiceError):
            results.append({"file": name, "error": problem_of(answer)})
        else:
            results.append({"file": name, **image_result(classifier, answer, top_k, total_s)})
    return {"results": results}


def model_info(classifier: Classifier) -> ModelInfo:
    """Describe a loaded model."""
    placement, manifest = classifier.placement, classifier.manifest
    return ModelInfo(
        name=classifier.name,
        version=classifier.version,
        ready=classifier.unready is None,
        reason=without_folders(classifier.unready or placement.reason),
        provider=placement.provider,
        nodes=placement.nodes,
        precision=placement.precision,
        trained=manifest.trained,
        labels=len(classifier.labels),
        weights=manifest.weights.source,
        batch_ms={size: _milliseconds(seconds) for size, seconds in sorted(classifier.batch_s.items())},
        input=manifest.input,
        preprocessing=manifest.preprocessing,
        variants=[VariantInfo(precision=one.precision, agreement=one.agreement) for one in manifest.variants],
        golden=[sample.top_k[0] for sample in manifest.golden],
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
