"""One version of one model, from image bytes to labels: decode, batch, infer, top-k."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.budget import Budget
from service.errors import InferenceFailed, InvalidManifest, InvalidParameter
from service.inference.devices import cuda
from service.inference.image import decode
from service.inference.manifest import Golden, Manifest, Prediction, checked_file, read_labels, read_manifest
from service.inference.placement import place
from service.scheduling.admission import Lane, Runs
from service.scheduling.batch_queue import BatchQueue, Priority
from service.scheduling.batcher import Batcher
from service.scheduling.cost_model import CostModel
from service.scheduling.pixel_slab import PixelSlab
from service.settings import Settings

# JPEG decoders and resamplers differ by a level here and there. That moves a probability by about 0.01, and can swap
# two classes that are nearly tied; a wrong crop, a wrong colour order or a wrong kernel does far more. Beyond that, a
# variant may be off by as much as it was when it was exported.
_GOLDEN_TOLERANCE = 0.05
_GOLDEN_TIE = 0.8

# Streams gain up to a fifth by not waiting for threads that decode, which warm-up doesn't see. So they may lose some of
# it there. What a busy neighbour slows down, too, is measured again before it is believed.
_TOLERATED = 1.15
_ATTEMPTS = 3

log = logging.getLogger("inferception")


class Classification(NamedTuple):
    """The answer to one image: most probable first, and where the time went, in seconds."""

    predictions: list[Prediction]
    decode_s: float
    queue_s: float
    infer_s: float
    batch_size: int


class Classifier:
    """A loaded, warmed and checked model. Making one takes seconds and blocks: do it in a thread."""

    def __init__(self, folder: Path, settings: Settings, batcher: Batcher, pixels_in_flight: Budget) -> None:
        """Load ``folder`` (``<name>/<version>``). Raises InvalidManifest or StartupError."""
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.labels = read_labels(folder, self.manifest.labels)
        self.placement = place(folder, self.manifest, settings)
        self._check_shapes()
        self._max_pixels, self._fast = settings.max_pixels, settings.decode == "fast"
        self._pixels_in_flight = pixels_in_flight
        self._golden = self._read_golden()
        self.warm_up_s = self._warm_up(settings.batch_sizes, self.placement.sessions)
        busy_s = self._warm_up_streams(settings.batch_sizes)
        cost = CostModel(busy_s, settings.batch_sizes)
        devices = settings.batches_at_a_time
        each = self.placement.sessions if len(self.placement.sessions) == devices else self.placement.streams
        running = settings.max_batch_size * devices
        rows = settings.max_queue_size + running + settings.decode_threads
        self.lane = Lane(
            self.manifest.name,
            each,
            BatchQueue(cost, settings.max_queue_size, alone=self.warm_up_s[1] / busy_s[1]),
            PixelSlab(
                rows,
                settings.max_batch_size,
                self.manifest.input.height,
                self.manifest.input.width,
                devices=devices,
                pin=cuda.pin if self.placement.on_gpu else None,
            ),
            probe=lambda session: self._run_golden(1, session),
            whole=None if each is self.placement.sessions else self.placement.sessions[0],
            head_starts=not self.placement.on_gpu,  # ONNX Runtime has a context for each thread there
        )
        self._batcher = batcher

    def __repr__(self) -> str:
        return f"{self.manifest.name} version {self.manifest.version}"

    @property
    def unready(self) -> str | None:
        """Why the model is not offered just now, or None when it is."""
        return self.lane.breaker.reason

    def check_admission(self, deadline: float, top_k: int, priority: Priority) -> None:
        """Raise what ``classify`` would, without the image: InvalidParameter, Unavailable or Overloaded."""
        if top_k > len(self.labels):
            raise InvalidParameter(f"top_k={top_k}, but {self.manifest.name} has {len(self.labels)} classes")
        self._batcher.check(self.lane, deadline, priority)

    async def classify(self, data: bytes, *, top_k: int, deadline: float, priority: Priority) -> Classification:
        """Classify one encoded image. ``deadline`` is on the event loop's clock.

        Raises InvalidImage, ImageTooLarge, Unavailable, Overloaded, DeadlineExceeded or InferenceFailed. Cancelling
        is safe at any moment.
        """
        with self._batcher.admit(self.lane, deadline, priority) as admission:
            answer = await admission.run(lambda pixels: self._decode(data, pixels))
        predictions = self._top(answer.probabilities, top_k)
        if math.isnan(predictions[0]["probability"]):  # then the softmax made all of them so
            raise InferenceFailed("the model's answer to this image is not a number")
        return Classification(predictions, answer.decode_s, answer.queue_s, answer.infer_s, answer.batch_size)

    def _decode(self, data: bytes, pixels: NDArray[np.uint8]) -> None:
        decode(data, pixels, self.manifest.preprocessing, self._max_pixels, self._pixels_in_flight, self._fast)

    def _top(self, probabilities: NDArray[np.float32], top_k: int) -> list[Prediction]:
        order = (-probabilities).argsort(kind="stable")[:top_k].tolist()
        return [Prediction(index=i, label=self.labels[i], probability=probabilities.item(i)) for i in order]

    def _check_shapes(self) -> None:
        session = self.placement.sessions[0]
        graph = (session.height, session.width, session.classes)
        described = (self.manifest.input.height, self.manifest.input.width, len(self.labels))
        if graph != described:
            raise InvalidManifest(
                f"{self!r}: the graph's height, width, classes are {graph}, the manifest's {described}"
            )

    def _read_golden(self) -> NDArray[np.uint8]:
        size = (self.manifest.input.height, self.manifest.input.width)
        golden = np.empty((len(self.manifest.golden), *size, 3), np.uint8)
        for sample, pixels in zip(self.manifest.golden, golden, strict=True):
            self._decode(checked_file(self.folder, sample).read_bytes(), pixels)
        return golden

    def _warm_up(self, sizes: Sequence[int], sessions: Sequence[Runs]) -> dict[int, float]:
        """Run batches of the golden samples, so that memory and kernels are settled and answers known right.

        Returns the seconds of each size that ran while all ``sessions`` are busy, on the slowest. The largest runs
        first, and pays for the memory that all of them use. Where kernels are chosen the first time that a size runs,
        each runs twice; elsewhere those between the largest and one bring nothing new.
        """
        times = 2
        if self.placement.device == "cpu":
            times, sizes = 1, sorted({max(sizes), min(sizes)}, reverse=True)
        seconds: dict[int, float] = {}
        with ThreadPoolExecutor(len(sessions)) as at_a_time:
            for size in sizes:
                for _ in range(times):
                    seconds[size] = max(at_a_time.map(functools.partial(self._run_golden, size), sessions))
        return seconds

    def _warm_up_streams(self, sizes: Sequence[int]) -> dict[int, float]:
        """Return the seconds of each size on one stream while all of them are busy; on the whole CPU without streams.

        Where they are too slow together, as they may be when the CPU has less to give than threads, they are given up.
        """
        streams = self.placement.streams
        if not streams:
            return self.warm_up_s
        whole_s = _image_seconds(self.warm_up_s)
        for _ in range(_ATTEMPTS):
            seconds = self._warm_up(sizes, streams)
            stream_s = _image_seconds(seconds)
            if stream_s / len(streams) < _TOLERATED * whole_s:
                return seconds
        log.info(
            "%r runs one batch at a time: an image takes %.0f ms in each of %d streams, and %.0f ms without",
            self,
            stream_s * 1e3,
            len(streams),
            whole_s * 1e3,
        )
        self.placement = dataclasses.replace(self.placement, streams=[])
        return self.warm_up_s

    def _run_golden(self, size: int, session: Runs) -> float:
        """Return the seconds of one batch of golden samples; raises InvalidManifest unless every answer is right."""
        images = np.resize(self._golden, (size, *self._golden.shape[1:]))  # repeated to fill the batch
        start = time.perf_counter()
        probabilities = session.run(images)
        seconds = time.perf_counter() - start
        for i, answer in enumerate(probabilities):
            self._check_golden(self.manifest.golden[i % len(self._golden)], answer, size)
        return seconds

    def _check_golden(self, sample: Golden, answer: NDArray[np.float32], batch_size: int) -> None:
        expected = sample.top_k[0]
        tolerance = _GOLDEN_TOLERANCE + self.placement.variant.agreement.max_abs_probability
        near = all(abs(float(answer[p["index"]]) - p["probability"]) <= tolerance for p in sample.top_k)
        if not (near and answer[expected["index"]] >= _GOLDEN_TIE * answer.max()):  # nor are NaNs right
            (found,) = self._top(answer, 1)
            raise InvalidManifest(
                f"{self!r} answers {found['label']} ({found['probability']:.3f}) to {sample.file} in a batch of "
                f"{batch_size} instead of {expected['label']} ({expected['probability']:.3f}); re-export the model"
            )


def _image_seconds(warm_up_s: Mapping[int, float]) -> float:
    """Return what an image takes, in the size that takes the least."""
    return min(seconds / size for size, seconds in warm_up_s.items())
