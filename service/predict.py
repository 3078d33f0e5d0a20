"""One question, from its deadline to its answers, for every door. Knows no HTTP.

The rules:
- The model is found and admission is checked before a door reads the images.
- One deadline covers reading, decoding, waiting and inference.
- A door cancels a question whose client has gone, or raises ClientGone in it. The question takes its work with it.
- Each image that is answered or fails is counted once. A question that fails before its images counts as one image.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from service.classifier import Classifier
from service.errors import ClientGone, DeadlineExceeded, Overloaded, ServiceError, Unavailable
from service.inference.picture_cost import Encoded
from service.metrics import Metrics
from service.registry import Registry
from service.scheduling.admission import Answer
from service.scheduling.batch_queue import Priority, Terms
from service.settings import Settings

log = logging.getLogger("inferception")


@contextmanager
def _memory() -> Iterator[None]:
    """Raise Unavailable for a lack of memory in the block."""
    try:
        yield
    except MemoryError:
        log.exception("no memory left")
        raise Unavailable("the server has no memory left") from None


@dataclass(frozen=True)
class Question:
    """What one client asks of one model. The deadline in ``terms`` is in seconds on the event loop's clock."""

    classifier: Classifier
    timeout_s: float
    terms: Terms
    _metrics: Metrics

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Check admission, then let the block read the images and get their answers.

        Raises what ``Classifier.check`` raises, DeadlineExceeded once the deadline has passed, and Unavailable when
        no memory is left.
        """
        try:
            with self.classifier.asked(), _memory():
                async with asyncio.timeout_at(self.terms.deadline):
                    self.classifier.check(self.terms)
                    yield
        except ServiceError as error:
            self.count(error)
            raise
        except TimeoutError:
            self.count(DeadlineExceeded(""))
            raise DeadlineExceeded(f"no answer within {self.timeout_s:g} s") from None
        except (asyncio.CancelledError, ClientGone):
            self._metrics.disconnected.labels(self.classifier.name).inc()
            raise

    async def answer(self, image: Encoded) -> Answer:
        """Classify one encoded image. Raises what ``Classifier.classify`` raises."""
        return await self._answer(image, self.terms)

    async def _answer(self, image: Encoded, terms: Terms) -> Answer:
        with _memory():
            answer = await self.classifier.classify(image, terms)
        self._metrics.images.labels(self.classifier.name, "ok").inc()
        for stage, seconds in answer.stages.items():
            self._metrics.stage.labels(stage).observe(seconds)
        return answer

    async def answers(self, images: Sequence[Encoded]) -> list[Answer | ServiceError]:
        """Classify several encoded images. An image that fails has its error in its place.

        The images wait for each other, so only the question's own wait is bounded by its terms.
        """
        patient = self.terms._replace(max_wait=math.inf)

        async def outcome(image: Encoded) -> Answer | ServiceError:
            try:
                return await self._answer(image, patient)
            except ServiceError as error:
                self.count(error)
                error.__context__ = None
                return error.with_traceback(None)  # the frames hold the encoded images

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(image)) for image in images]
        return [task.result() for task in tasks]

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

    def question(self, model: str | None, version: int | None, timeout_ms: int | None, priority: Priority) -> Question:
        """Find a model, and set a deadline in ``timeout_ms`` milliseconds. Raises what ``Registry.find`` raises.

        Without ``timeout_ms``, nobody said how long an answer is worth waiting for: the wait is bounded as well.
        """
        classifier = self.registry.find(model, version)
        timeout_s = min(timeout_ms or self.settings.default_timeout_ms, self.settings.max_timeout_ms) / 1e3
        deadline = asyncio.get_running_loop().time() + timeout_s
        max_wait = math.inf if timeout_ms else self.settings.max_wait_ms / 1e3
        return Question(classifier, timeout_s, Terms(deadline, priority, max_wait), self.metrics)
