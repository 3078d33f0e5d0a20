"""The model in this process, behind the same scheduler, decoders and limits as in the server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.classify_photos.answers import Answer, Model
from service.errors import InvalidParameter, ModelNotFound, StartupError
from service.inference.repository import list_repository
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
    alone = settings.model_copy(update={"default_model": name, "repository": "fixed"})  # one version for all photos
    async with Runtime(alone, only=name) as runtime:
        await runtime.loading
        found = runtime.registry.find(name)
        if top_k is not None and top_k > len(found.labels):
            raise InvalidParameter(f"top_k={top_k}, but {name} has {len(found.labels)} classes")

        async def ask(photo: bytes) -> Answer:
            question = runtime.predict.question(name, found.version, settings.max_timeout_ms, Priority.NORMAL)
            async with question.asked():
                answer = await question.answer(photo)
            best = found.top(answer.probabilities, top_k or 5)
            return Answer(found.name, found.version, found.manifest.trained, best)

        # While each slot runs a batch, the next batches are ready and the decoders have work.
        enough = 2 * settings.max_batch_size * len(found.placement.sessions) + settings.decoders
        yield Model(ask, min(enough, settings.max_queue_size))


def _known(settings: Settings, name: str | None) -> str:
    listing = list_repository(settings.model_repository)
    names = sorted({*listing.versions, *listing.unreadable})
    if not names:
        raise StartupError(f"no models in {settings.model_repository}: run `make export` first")
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise InvalidParameter(f"say which model: --model and one of {', '.join(names)}")
    if name not in names:
        raise ModelNotFound(f"no model {name!r}; there is {', '.join(names)}")
    return name
