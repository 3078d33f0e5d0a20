"""The model in this process, behind the same scheduler, decoders and limits as in the server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.classify_photos.answers import Answer, Model
from service.errors import InvalidParameter, ModelNotFound
from service.inference.repository import model_folders
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from service.settings import Settings


@asynccontextmanager
async def here(settings: Settings, name: str | None, top_k: int | None) -> AsyncGenerator[Model, None]:
    """Load a model: the one of this name, the default model, or the only model. ``top_k`` is as in a request.

    Raises ModelNotFound or InvalidParameter for what was asked, StartupError or Unavailable if the model can't be
    loaded.
    """
    name = _known(settings, name or settings.default_model)
    async with Runtime(settings, only=name) as runtime:
        await runtime.loading
        classifier = runtime.registry.find(name)
        if top_k is not None and top_k > len(classifier.labels):
            raise InvalidParameter(f"top_k={top_k}, but {name} has {len(classifier.labels)} classes")

        async def ask(photo: bytes) -> Answer:
            question = runtime.predict.question(name, None, settings.max_timeout_ms, Priority.NORMAL)
            async with question.asked():
                answer = await question.answer(photo)
            asked = question.classifier
            return Answer(
                asked.name, asked.version, asked.manifest.trained, asked.top(answer.probabilities, top_k or 5)
            )

        # While each slot runs a batch, the next batches are ready and the decoders have work.
        enough = 2 * settings.max_batch_size * len(classifier.placement.sessions) + settings.decoders
        yield Model(ask, min(enough, settings.max_queue_size))


def _known(settings: Settings, name: str | None) -> str:
    names = [folder.name for folder in model_folders(settings.model_repository)]
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise InvalidParameter(f"say which model: --model and one of {', '.join(names)}")
    if name not in names:
        raise ModelNotFound(f"no model {name!r}; there is {', '.join(names)}")
    return name
