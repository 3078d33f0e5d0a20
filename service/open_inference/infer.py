"""One request to infer, whatever the protocol round it: what it asks for, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.classifier import Classifier
from service.errors import InvalidParameter
from service.inference.formats import is_picture
from service.open_inference.tensors import INPUT, OUTPUT, Given, Tensor, Wanted, given, images
from service.predict import Question
from service.scheduling.batch_queue import Priority

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

_DEFAULT, _LOWEST = 2, 3  # a priority is 1 (the highest), 2, or 3 and more; 0 is the default


@dataclass(frozen=True)
class InferRequest:
    """A request: ``outputs`` are by name, and none means all."""

    id: str
    parameters: Parameters
    inputs: Sequence[Tensor]
    outputs: Sequence[tuple[str, Parameters]]

    def terms(self) -> tuple[int | None, Priority]:
        """Return the timeout in milliseconds, or None, and the priority. Raises InvalidParameter."""
        timeout_us = _whole(self.parameters, "timeout")
        level = _whole(self.parameters, "priority") or _DEFAULT
        return -(-timeout_us // 1000) or None, Priority(min(level, _LOWEST) - 1)

    def wanted(self) -> Wanted:
        """Return what is wanted of the one output. Raises InvalidParameter."""
        binary = self.parameters.get("binary_data_output") is True
        names = [name for name, _ in self.outputs]
        if not names:
            return Wanted(binary=binary)
        if names != [OUTPUT]:
            raise InvalidParameter(f"unexpected inference outputs {names!r:.200}: there is one output, {OUTPUT!r}")
        (_, parameters), *_ = self.outputs
        refuse_shared_memory(parameters)
        return Wanted(_whole(parameters, "classification"), parameters.get("binary_data", binary) is True)

    async def answer(self, question: Question, wanted: Wanted, most: int) -> Given:
        """Return the answer to all images, at most ``most``. Raises what ``Question.answer_whole`` raises."""
        size = question.classifier.manifest.input
        answers = await question.answer_whole(images(self.inputs, size.height, size.width, most))
        return given(np.stack([answer.probabilities for answer in answers]), wanted, question.classifier.labels)


def bare_request(body: memoryview, height: int, width: int) -> InferRequest:
    """Return the request whose body is its one input: a picture's file, or pixels of one image if the size fits."""
    if len(body) == height * width * 3 and not is_picture(body[:64].tobytes()):
        tensor = Tensor(INPUT, "UINT8", [1, height, width, 3], body)
    else:
        tensor = Tensor(INPUT, "BYTES", [1], None, [bytes(body)])
    return InferRequest("", {"binary_data_output": True}, [tensor], [])


def refuse_shared_memory(parameters: Parameters) -> None:
    """Raise InvalidParameter if a tensor is to lie in shared memory."""
    if "shared_memory_region" in parameters:
        raise InvalidParameter("shared memory is not supported; send tensors in the body")


def described(classifier: Classifier) -> dict[str, Parameter]:
    """Return what an answer says of the version that gave it."""
    return {"trained": classifier.manifest.trained, "precision": classifier.placement.precision}


def _whole(parameters: Parameters, name: str) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidParameter(f"{name} must be a whole number that is not negative, not {value!r:.50}")
    return value
