"""``POST /classify``: reads what is asked, lets ``predict`` answer it, and describes the answer."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from service.access import Trace
from service.errors import InvalidParameter
from service.http.body import REQUEST_BODY, Body
from service.http.disconnect import ends_with_client
from service.http.parameters import Asked, AskedInHeaders
from service.http.problems import described_problems
from service.http.schemas import ImageResult, Results, image_result, image_results
from service.runtime import Runtime

router = APIRouter()


@router.post(
    "/classify",
    response_model=ImageResult | Results,
    responses=described_problems(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=REQUEST_BODY,
)
async def classify(
    request: Request, asked: Annotated[Asked, Query()], headers: Annotated[AskedInHeaders, Header()]
) -> Response:
    """Classify an image sent as the raw body, or the `file` parts of a multipart body."""
    runtime: Runtime = request.app.state.runtime
    trace: Trace = request.state.trace
    timeout_ms = asked.timeout_ms or headers.x_request_timeout_ms
    priority = max(headers.priority, trace.best_priority)  # a lower number runs first
    question = runtime.predict.question(asked.model, asked.version, timeout_ms, priority)
    trace.model = question.classifier.name
    top_k, classes = asked.top_k or 5, len(question.classifier.labels)
    if asked.top_k is not None and asked.top_k > classes:
        raise InvalidParameter(f"top_k={top_k}, but {question.classifier.name} has {classes} classes")
    async with question.asked():
        with Body(request, runtime.settings, runtime.body_bytes) as body:
            files = await body.files()
            trace.finished("read")
            async with ends_with_client(request.receive):
                if len(files) == 1:
                    answer = await question.answer(files[0].data)
                    trace.stages |= answer.stages
                    return JSONResponse(image_result(question.classifier, answer, top_k, trace.so_far))
                answers = await question.answers([file.data for file in files])
                trace.stages |= question.stages
                names = [file.name for file in files]
                return JSONResponse(image_results(question.classifier, names, answers, top_k, trace.so_far))
