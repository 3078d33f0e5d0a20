"""Warms a model up with pictures whose answers are known, and measures how long a batch takes.

A model that is warm has all its memory and kernels, and has given right answers in every batch.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidManifest
from service.inference.devices import DEVICES
from service.inference.manifest import Golden, Manifest, Variant, checked_file
from service.inference.placement import Alone, Placement
from service.sessions import Session

# JPEG decoders and resamplers differ by a level here and there. That moves a probability by about 0.01, and can swap
# two classes that are nearly tied. A wrong crop, a wrong colour order or a wrong kernel does far more. A variant may
# also be off by as much as it was when it was exported.
_GOLDEN_TOLERANCE = 0.05
_GOLDEN_TIE = 0.8

Decode = Callable[[bytes, NDArray[np.uint8]], None]  # an encoded image into uint8 [height, width, 3]


@dataclass(frozen=True, eq=False)
class GoldenSamples:
    """The decoded pictures of the version ``name``, uint8 ``[n, height, width, 3]``, and an answer to each."""

    name: str
    samples: Sequence[Golden]
    pixels: NDArray[np.uint8]
    tolerance: float  # of a probability

    @classmethod
    def read(cls, folder: Path, manifest: Manifest, variant: Variant, decode: Decode) -> Self:
        """Read and decode the samples in a version folder, to check ``variant``. ``decode`` is not kept.

        Raises InvalidManifest for a file that is not the manifest's, and for one that ``decode`` refuses.
        """
        pixels = np.empty((len(manifest.golden), manifest.input.height, manifest.input.width, 3), np.uint8)
        for sample, row in zip(manifest.golden, pixels, strict=True):
            content = checked_file(folder, sample).read_bytes()
            try:
                decode(content, row)
            except Exception as error:  # decoders and extreme crops raise what they like
                raise InvalidManifest(f"can't decode {folder / sample.file}: {error}; re-export the model") from error
        tolerance = _GOLDEN_TOLERANCE + variant.agreement.max_abs_probability
        return cls(f"{manifest.name} version {manifest.version}", manifest.golden, pixels, tolerance)

    def run(self, session: Session, size: int) -> float:
        """Return the seconds that a batch of ``size`` images takes, which repeats the samples as need be.

        Raises InvalidManifest unless the session answers all of them right.
        """
        images = np.resize(self.pixels, (size, *self.pixels.shape[1:]))
        start = time.perf_counter()
        try:
            answers = session.run(images)
        except Exception as error:  # onnxruntime's exceptions share no base below Exception
            raise InvalidManifest(f"{self.name} can't run a batch of {size}: {error}") from error
        seconds = time.perf_counter() - start
        for sample, answer in zip(itertools.cycle(self.samples), answers, strict=False):
            self._check(sample, answer, size)
        return seconds

    def probe(self, sessions: Iterable[Session]) -> None:
        """Run one image on each session. Raises InvalidManifest unless every answer is right."""
        for session in sessions:
            self.run(session, 1)

    def _check(self, sample: Golden, answer: NDArray[np.float32], size: int) -> None:
        expected = sample.top_k[0]
        near = all(abs(float(answer[p["index"]]) - p["probability"]) <= self.tolerance for p in sample.top_k)
        if not (near and answer[expected["index"]] >= _GOLDEN_TIE * answer.max()):  # NaNs are not right either
            found, right = int(answer.argmax()), f"class {expected['index']}, {expected['label']}"
            raise InvalidManifest(
                f"{self.name} answers class {found} ({answer[found]:.3f}) to {sample.file} in a batch of {size} "
                f"instead of {right} ({expected['probability']:.3f}); re-export the model"
            )


def warm_up(placement: Placement, golden: GoldenSamples, sizes: Sequence[int], run: Alone) -> dict[int, float]:
    """Run batches of the golden samples on all sessions of a model. Return the seconds of a batch by its size.

    The seconds are those of the last batch of a size, on the slowest of the sessions side by side. ``run`` executes one
    piece of work while no other batch runs. A piece of work is a batch of one size on each session, so that other
    models' batches wait for one batch at most.

    Raises InvalidManifest unless every answer is right.
    """
    with ThreadPoolExecutor(len(placement.sessions)) as side_by_side:

        def slowest(size: int) -> float:
            return max(side_by_side.map(functools.partial(golden.run, size=size), placement.sessions))

        return {size: run(functools.partial(slowest, size)) for size in _schedule(placement, sizes)}


def _schedule(placement: Placement, sizes: Sequence[int]) -> list[int]:
    """Return the sizes of the batches to run, in order. The largest comes first: it gets the memory for all.

    Where kernels are chosen the first time that a size runs, each size runs twice. Elsewhere the sizes between the
    largest and the smallest bring nothing new.
    """
    if DEVICES[placement.device].kernels_by_size:
        return [size for size in sorted(sizes, reverse=True) for _ in range(2)]
    return sorted({max(sizes), min(sizes)}, reverse=True)
