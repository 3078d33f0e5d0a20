"""One served version of one model: decodes an image into a row of pixels, waits for its batch, answers."""

import asyncio
import functools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import InferenceFailed, ServiceError
from service.inference.decoder_process import How
from service.inference.decoders import DecoderPool, Decoders
from service.inference.devices import DEVICES
from service.inference.manifest import Manifest, Prediction, read_labels, read_manifest
from service.inference.picture_cost import Encoded
from service.inference.placement import Alone, Placement, place
from service.inference.warm_up import GoldenSamples, warm_up
from service.remembered import Image, Remembered
from service.scheduling.admission import AT_ONCE, Answer, Decoding
from service.scheduling.batch_queue import BatchQueue, Terms
from service.scheduling.batcher import Batcher, Served
from service.scheduling.cost_model import CostModel
from service.scheduling.pixel_slab import PixelSlab
from service.scheduling.scheduler import Model
from service.settings import Settings
from service.statistics import Statistics


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let an error of the block say whose it is."""
    try:
        yield
    except ServiceError as error:
        error.args = (f"{name}{error}",)
        raise


def _decode(pool: DecoderPool, image: Encoded, how: How, until: float, name: str, row: NDArray[np.uint8]) -> None:
    with _naming(name):
        pool.decode(image, how, until, row)


@dataclass(eq=False)
class Classifier:
    """A loaded, warmed and checked version. It answers once the batcher serves it."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]
    placement: Placement
    batch_s: dict[int, float]  # seconds of a batch by its size, at warm-up
    served: Served
    _batcher: Batcher
    _decoders: Decoders
    _how: How  # pictures are decoded
    remembered: Remembered | None  # None if every image runs
    _questions: int = field(default=0, init=False)  # being asked; their images may be still to come
    _unasked: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __repr__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The model's version."""
        return self.manifest.version

    @property
    def statistics(self) -> Statistics:
        """What the version has done."""
        return self.served.statistics

    @property
    def unready(self) -> str | None:
        """Why the model is not offered just now, or None when it is."""
        return self.served.model.breaker.reason

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Keep the version served while the block asks it."""
        self._questions += 1
        try:
            yield
        finally:
            self._questions -= 1
            self._unasked.set()

    async def retire(self) -> None:
        """Stop serving a version that nobody finds any more, once its questions and its last batch have ended."""
        while self._questions:
            self._unasked.clear()
            await self._unasked.wait()
        await self._batcher.remove(self.served)

    def check(self, terms: Terms) -> None:
        """Raise what ``classify`` would raise now, whatever the image: Unavailable or Overloaded."""
        if self.remembered is None:  # else the image may be one that needs no place in the queue
            self._batcher.check(self.served, terms)

    async def classify(self, images: Sequence[Image], terms: Terms) -> list[Answer]:
        """Classify images together: all are admitted or none is, and what fails one fails all.

        The deadline is in seconds on the event loop's clock. Raises InvalidParameter, InvalidImage, ImageTooLarge,
        UnsupportedType, Unavailable, Overloaded, DeadlineExceeded or InferenceFailed. Cancelling is safe at any moment.
        """
        run = functools.partial(self._run, images, terms)
        return await (self.remembered.answers(images, terms, run) if self.remembered else run(range(len(images))))

    async def _run(self, images: Sequence[Image], terms: Terms, numbers: Sequence[int]) -> list[Answer]:
        """Classify the images of these numbers."""
        until = time.monotonic() + terms.deadline - asyncio.get_running_loop().time()
        self._decoders.check([image for n in numbers if not isinstance(image := images[n], np.ndarray)])
        with ExitStack() as admitted:
            decodings = [
                self._decoding(images[number], until, admitted, f"image {number}: " if len(images) > 1 else "")
                for number in numbers
            ]
            answers = await self._batcher.classify(self.served, decodings, terms)
        if any(math.isnan(answer.probabilities[0]) for answer in answers):  # then the softmax made all of them so
            raise InferenceFailed("the model's answer to this image is not a number")
        return answers

    def _decoding(self, image: Image, until: float, admitted: ExitStack, name: str) -> Decoding:
        if isinstance(image, np.ndarray):
            return Decoding(AT_ONCE, functools.partial(np.copyto, src=image))
        with _naming(name):
            pool = admitted.enter_context(self._decoders.admit(image))
        return Decoding(pool.threads, functools.partial(_decode, pool, image, self._how, until, name))

    def top(self, probabilities: NDArray[np.float32], top_k: int) -> list[Prediction]:
        """Name the ``top_k`` most probable classes of ``probabilities`` ``[classes]``, most probable first."""
        order = (-probabilities).argsort(kind="stable")[:top_k].tolist()
        return [Prediction(index=i, label=self.labels[i], probability=probabilities.item(i)) for i in order]


def load(folder: Path, settings: Settings, batcher: Batcher, decoders: Decoders, run_alone: Alone) -> Classifier:
    """Load the version in ``folder`` (``<name>/<version>``), warm it up and check its answers.

    Loading blocks for seconds: do it in a thread. ``run_alone`` runs a batch while no other batch runs.
    Raises InvalidManifest or StartupError.
    """
    manifest = read_manifest(folder)
    labels = read_labels(folder, manifest.labels)
    how = How(
        manifest.preprocessing, settings.max_pixels, settings.decode == "fast", tuple(settings.formats.split(","))
    )
    placement = place(folder, manifest, settings, run_alone)
    golden = GoldenSamples.read(folder, manifest, placement.variant, functools.partial(decoders.decode, how))
    batch_s = warm_up(placement, golden, settings.batch_sizes, run_alone)
    cost = CostModel(batch_s, settings.batch_sizes)
    slots, size, pin = len(placement.sessions), manifest.input, DEVICES[placement.device].pin
    # Room for a full queue while every slot runs its largest batch, and for images that left while they were decoded.
    rows = settings.max_queue_size + slots * settings.max_batch_size + settings.decoders + 1
    pixels = PixelSlab(rows, settings.max_batch_size, size.height, size.width, slots, pin)
    served = Served(
        Model(manifest.name, placement.sessions, BatchQueue(cost, settings.max_queue_size), version=manifest.version),
        pixels,
        probe=functools.partial(golden.probe, placement.sessions),
    )
    remembered = Remembered(len(labels), settings.cache_bytes) if settings.cache_bytes else None
    return Classifier(folder, manifest, labels, placement, batch_s, served, batcher, decoders, how, remembered)
