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
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from service.classifier import Classifier
from service.errors import ClientGone, DeadlineExceeded, Overloaded, ServiceError, Unavailable
from service.inference.picture_cost import Encoded
from service.inference.traffic import Label
from service.metrics import Metrics
from service.registry import Registry
from service.remembered import Image
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


@dataclass
class Question:
    """What one client asks of one model. The deadline in ``terms`` is in seconds on the event loop's clock."""

    classifier: Classifier
    timeout_s: float
    terms: Terms
    _metrics: Metrics
    _patience: asyncio.Timeout | None = field(default=None, init=False)
    stages: dict[str, float] = field(default_factory=dict, init=False)  # the longest of any image, in seconds
    _images: int = field(default=1, init=False)  # that one error is the answer to
    _answered: float | None = field(default=None, init=False)  # when the answers came, on time.perf_counter

    @property
    def _version(self) -> tuple[str, int]:
        return self.classifier.name, self.classifier.version

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Check admission, then let the block read the images and get their answers.

        Raises what ``Classifier.check`` raises, DeadlineExceeded once the deadline has passed, and Unavailable when
        no memory is left.
        """
        statistics, start = self.classifier.statistics, time.perf_counter()
        try:
            with self.classifier.asked(), _memory():
                async with asyncio.timeout_at(self.terms.deadline) as self._patience:
                    self.classifier.check(self.terms)
                    yield
            if self._answered is None:  # every image had an error of its own
                statistics.fail.add(time.perf_counter() - start)
            else:
                statistics.success.add(time.perf_counter() - start)
                statistics.compute_output.add(time.perf_counter() - self._answered)
        except ServiceError as error:
            self._failed(error, time.perf_counter() - start)
            raise
        except TimeoutError:
            self._failed(DeadlineExceeded(""), time.perf_counter() - start)
            raise DeadlineExceeded(f"no answer within {self.timeout_s:g} s") from None
        except (asyncio.CancelledError, ClientGone):
            self._metrics.disconnected.labels(*self._version).inc()
            raise

    def on(self, timeout_s: float, terms: Terms) -> None:
        """Change the terms, which a door may learn from the body only."""
        self.timeout_s, self.terms = timeout_s, terms
        if self._patience is not None:
            self._patience.reschedule(terms.deadline)

    async def answer(self, image: Encoded) -> Answer:
        """Classify one encoded image. Raises what ``Classifier.classify`` raises."""
        return (await self.answer_whole([image]))[0]

    async def answer_whole(self, images: Sequence[Image]) -> list[Answer]:
        """Classify images together: all of them or none. Raises what ``Classifier.classify`` raises."""
        self._images = len(images)
        answers = await self._answer(images, self.terms)
        self._note(answers)
        return answers

    async def _answer(self, images: Sequence[Image], terms: Terms) -> list[Answer]:
        with _memory():
            answers = await self.classifier.classify(images, terms)
        self._metrics.images.labels(*self._version, "ok").inc(len(answers))
        for answer in answers:
            for stage, seconds in answer.stages.items():
                self._metrics.stage.labels(stage).observe(seconds)
            if "cache" in answer.stages:
                looked_up = self._metrics.cache_misses if answer.batch_size else self._metrics.cache_hits
                looked_up.labels(*self._version).inc()
        return answers

    def _note(self, answers: Sequence[Answer]) -> None:
        self._answered = time.perf_counter()
        for answer in answers:
            for stage, seconds in answer.stages.items():
                self.stages[stage] = max(seconds, self.stages.get(stage, 0.0))
        ran = sum(answer.batch_size > 0 for answer in answers)
        self.classifier.statistics.answered(ran, self.stages)

    async def answers(self, images: Sequence[Encoded]) -> list[Answer | ServiceError]:
        """Classify several encoded images. An image that fails has its error in its place.

        The images wait for each other, so only the question's own wait is bounded by its terms.
        """
        patient = self.terms._replace(max_wait=math.inf)

        async def outcome(image: Encoded) -> Answer | ServiceError:
            try:
                return (await self._answer([image], patient))[0]
            except ServiceError as error:
                self.count(error)
                error.__context__ = None
                return error.with_traceback(None)  # the frames hold the encoded images

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(image)) for image in images]
        outcomes = [task.result() for task in tasks]
        if good := [outcome for outcome in outcomes if isinstance(outcome, Answer)]:
            self._note(good)
        return outcomes

    def _failed(self, error: ServiceError, seconds: float) -> None:
        self.count(error, self._images)
        if not isinstance(error, Overloaded):
            self.classifier.statistics.fail.add(seconds)

    def count(self, error: ServiceError, images: int = 1) -> None:
        """Count the images that got ``error`` for an answer."""
        reason = type(error).__name__
        self._metrics.images.labels(*self._version, reason).inc(images)
        if isinstance(error, Overloaded):
            self._metrics.shed.labels(*self._version, reason).inc(images)
        elif isinstance(error, DeadlineExceeded):
            self._metrics.expired.labels(*self._version).inc()


@dataclass(frozen=True)
class Predict:
    """Asks the models in ``registry``."""

    registry: Registry
    metrics: Metrics
    settings: Settings

    def question(
        self, model: str | None, version: int | Label | None, timeout_ms: int | None, priority: Priority
    ) -> Question:
        """Find a model, and set a deadline in ``timeout_ms`` milliseconds. Raises what ``Registry.choose`` raises.

        Without ``timeout_ms``, nobody said how long an answer is worth waiting for: the wait is bounded as well.
        """
        classifier = self.registry.choose(model, version)
        now = asyncio.get_running_loop().time()
        return Question(classifier, *self.terms(now, timeout_ms, priority), self.metrics)

    def terms(self, since: float, timeout_ms: int | None, priority: Priority) -> tuple[float, Terms]:
        """Return the timeout in seconds, and the terms of a question of the time ``since``, on the loop's clock."""
        timeout_s = min(timeout_ms or self.settings.default_timeout_ms, self.settings.max_timeout_ms) / 1e3
        max_wait = math.inf if timeout_ms else self.settings.max_wait_ms / 1e3
        return timeout_s, Terms(since + timeout_s, priority, max_wait)
