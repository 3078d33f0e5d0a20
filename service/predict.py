"""One question, from its deadline to its answers, for every door. Knows no HTTP.

The rules:
- The model is found and admission is checked before a door reads the images.
- One deadline covers reading, decoding, waiting and inference.
- A door cancels a question whose client has gone, or raises ClientGone in it. The question takes its work with it.
- Each question and each image is counted once, by how it ended.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.classifier import Classifier
from service.errors import ClientGone, DeadlineExceeded, Overloaded, ServiceError
from service.metrics import Metrics
from service.registry import Registry
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Priority
from service.settings import Settings


@dataclass(frozen=True)
class Question:
    """What one client asks of one model until ``deadline``, in seconds on the event loop's clock."""

    classifier: Classifier
    deadline: float
    priority: Priority
    _metrics: Metrics

    async def answer(self, image: bytes) -> Answer:
        """Classify one encoded image. Raises what ``Classifier.classify`` raises."""
        answer = await self.classifier.classify(image, self.deadline, self.priority)
        self._metrics.images.labels(self.classifier.name, "ok").inc()
        for stage, seconds in answer.stages.items():
            self._metrics.stage.labels(stage).observe(seconds)
        return answer

    async def answers(self, images: Sequence[bytes]) -> list[Answer | ServiceError]:
        """Classify several encoded images. One that fails has its error in its place."""

        async def outcome(image: bytes) -> Answer | ServiceError:
            try:
                return await self.answer(image)
            except ServiceError as error:
                self.count(error)
                return error

        return await asyncio.gather(*map(outcome, images))

    def count(self, error: ServiceError) -> None:
        """Count an image that got ``error`` for an answer."""
        model, reason = self.classifier.name, type(error).__name__
        self._metrics.images.labels(model, reason).inc()
        if isinstance(error, Overloaded):
            self._metrics.shed.labels(model, reason).inc()
        elif isinstance(error, DeadlineExceeded):
            self._metrics.expired.labels(model).inc()


@dataclass(frozen=True)
class Predict:
    """Asks the models in ``registry``."""

    registry: Registry
    metrics: Metrics
    settings: Settings

    @asynccontextmanager
    async def question(
        self, model: str | None, version: int | None, timeout_ms: int | None, priority: Priority
    ) -> AsyncIterator[Question]:
        """Find a model and check admission, then let the block ask.

        Raises what ``Registry.find`` and ``Classifier.check`` raise, and DeadlineExceeded once the block has taken
        ``timeout_ms`` milliseconds.
        """
        classifier = self.registry.find(model, version)
        timeout_s = min(timeout_ms or self.settings.default_timeout_ms, self.settings.max_timeout_ms) / 1e3
        deadline = asyncio.get_running_loop().time() + timeout_s
        question = Question(classifier, deadline, priority, self.metrics)
        try:
            with classifier.asked():
                async with asyncio.timeout_at(deadline):
                    classifier.check(deadline, priority)
                    yield question
        except ServiceError as error:
            question.count(error)
            raise
        except TimeoutError:
            late = DeadlineExceeded(f"no answer within {timeout_s:g} s")
            question.count(late)
            raise late from None
        except (asyncio.CancelledError, ClientGone):
            self.metrics.disconnected.labels(classifier.name).inc()
            raise
