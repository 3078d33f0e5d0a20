"""The RPCs: what each answers to its request. A request and an answer are protobuf's messages."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.access import Trace
from service.errors import InvalidParameter
from service.grpc import inference_pb2 as pb
from service.grpc import messages
from service.open_inference import descriptions
from service.open_inference.descriptions import number
from service.runtime import Runtime


@dataclass
class Call:
    """A request being answered: a call, or one message of a stream."""

    runtime: Runtime
    context: Any  # grpc.aio.ServicerContext
    metadata: dict[str, str]
    trace: Trace
    request: Any = None  # the message: None until it arrives, and empty until it is parsed

    def timeout_ms(self, asked_ms: int | None) -> int | None:
        """Return the milliseconds that the client waits: until its own deadline, or as long as its request says."""
        left_s = self.context.time_remaining()
        left_ms = None if left_s is None else max(1, math.ceil(left_s * 1e3))
        return min(filter(None, (asked_ms, left_ms)), default=None)


Answer = Callable[[Call, Any], Awaitable[Message]]


class Rpc(NamedTuple):
    """What reads a request, and what answers it. Health checks are ``for_anyone``, and need no key."""

    request: type[Message]
    answer: Answer
    for_anyone: bool = False
    is_stream: bool = False


async def server_live(_: Call, __: Any) -> Message:
    """Say that the process answers."""
    return pb.ServerLiveResponse(live=True)


async def server_ready(call: Call, _: Any) -> Message:
    """Say whether all models are ready."""
    return pb.ServerReadyResponse(ready=call.runtime.registry.unready is None)


async def health(call: Call, _: Any) -> Message:
    """Say whether all models are ready, whatever service is asked about: there is one.

    Kubernetes and proxies ask this to find out whether to send requests here. Triton would say SERVING while it loads.
    """
    ready = call.runtime.registry.unready is None
    return HealthCheckResponse(status=HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING)


async def model_ready(call: Call, request: Any) -> Message:
    """Say whether a model answers. An unknown one does not."""
    reason = descriptions.unready(call.runtime.registry, request.name, request.version)
    return pb.ModelReadyResponse(ready=reason is None)


async def server_metadata(_: Call, __: Any) -> Message:
    """Describe the server."""
    return ParseDict(descriptions.server(), pb.ServerMetadataResponse())


async def model_metadata(call: Call, request: Any) -> Message:
    """Describe a model's tensors."""
    registry = call.runtime.registry
    found = registry.find(request.name, number(request.version))
    return ParseDict(descriptions.metadata(found, registry), pb.ModelMetadataResponse())


async def model_config(call: Call, request: Any) -> Message:
    """Describe how a model is run."""
    found = call.runtime.registry.find(request.name, number(request.version))
    described = descriptions.configuration(found, call.runtime.settings)
    return ParseDict({"config": described}, pb.ModelConfigResponse())


async def model_statistics(call: Call, request: Any) -> Message:
    """Return the statistics of one version, or of all if no model is named."""
    registry = call.runtime.registry
    found = [registry.find(request.name, number(request.version))] if request.name else registry
    return ParseDict({"model_stats": list(map(descriptions.statistics, found))}, pb.ModelStatisticsResponse())


async def repository_index(call: Call, request: Any) -> Message:
    """List what the model repository holds."""
    listed = await descriptions.repository_index(call.runtime, only_ready=request.ready)
    return ParseDict({"models": listed}, pb.RepositoryIndexResponse())


async def load(call: Call, request: Any) -> Message:
    """Load a model as it is in its folder now, and answer when it is served."""
    _demand_admin(call)
    if request.parameters:
        raise InvalidParameter("a model is loaded as it is in the repository: nothing reads parameters")
    await call.runtime.control.load(request.model_name)
    return pb.RepositoryModelLoadResponse()


async def unload(call: Call, request: Any) -> Message:
    """Serve a model no longer, and answer when it is gone."""
    _demand_admin(call)
    await call.runtime.control.unload(request.model_name)
    return pb.RepositoryModelUnloadResponse()


def _demand_admin(call: Call) -> None:
    if call.runtime.keys is not None:
        call.runtime.keys.demand_admin(call.trace)


async def model_infer(call: Call, request: Any) -> Any:
    """Classify the images of a request, all or none."""
    predict, trace = call.runtime.predict, call.trace
    asked = messages.read(request)
    timeout_ms, priority = asked.terms()
    terms = call.timeout_ms(timeout_ms), max(priority, trace.best_priority)  # a lower priority runs first
    question = predict.question(request.model_name, number(request.model_version), *terms)
    trace.model = question.classifier.name
    async with question.asked():
        given = await asked.answer(question, asked.wanted(), descriptions.most_images(predict.settings))
        trace.stages |= question.stages
        return messages.write(question.classifier, asked.id, given)


async def stream_infer(call: Call, request: Any) -> Message:
    """Classify the images of one message of a stream. It has one answer, which is its last."""
    answer = await model_infer(call, request)
    answer.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=answer)


RPCS = {
    "grpc.health.v1.Health": {"Check": Rpc(HealthCheckRequest, health, for_anyone=True)},
    "inference.GRPCInferenceService": {
        "ServerLive": Rpc(pb.ServerLiveRequest, server_live, for_anyone=True),
        "ServerReady": Rpc(pb.ServerReadyRequest, server_ready, for_anyone=True),
        "ServerMetadata": Rpc(pb.ServerMetadataRequest, server_metadata),
        "ModelReady": Rpc(pb.ModelReadyRequest, model_ready),
        "ModelMetadata": Rpc(pb.ModelMetadataRequest, model_metadata),
        "ModelConfig": Rpc(pb.ModelConfigRequest, model_config),
        "ModelStatistics": Rpc(pb.ModelStatisticsRequest, model_statistics),
        "RepositoryIndex": Rpc(pb.RepositoryIndexRequest, repository_index),
        "RepositoryModelLoad": Rpc(pb.RepositoryModelLoadRequest, load),
        "RepositoryModelUnload": Rpc(pb.RepositoryModelUnloadRequest, unload),
        "ModelInfer": Rpc(pb.ModelInferRequest, model_infer),
        "ModelStreamInfer": Rpc(pb.ModelInferRequest, stream_infer, is_stream=True),
    },
}
