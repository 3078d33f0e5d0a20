from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InvalidManifest
from service.inference import warm_up as module
from service.inference.image import decode
from service.inference.manifest import Agreement, Golden, Prediction, Variant, read_manifest
from service.inference.placement import Placement, place
from service.inference.warm_up import GoldenSamples, warm_up
from service.sessions import Session
from service.settings import Settings

SHA256 = "0" * 64
SIZES = [6, 3, 1]
VARIANT = Variant(
    file="fp32.onnx",
    sha256=SHA256,
    precision="fp32",
    agreement=Agreement(reference="torch", images=1, top1=1.0, mean_abs_probability=0.0, max_abs_probability=0.02),
)


class Clock(threading.local):
    """A clock for each thread. It stands still until a session in that thread moves it."""

    now = 0.0


class Answering:
    """Answers each image with the class in its first byte. A batch takes ``batch_s`` plus ``image_s`` per image."""

    def __init__(self, clock: Clock, batch_s: float, image_s: float) -> None:
        self._clock, self._batch_s, self._image_s = clock, batch_s, image_s
        self.ran: list[int] = []
        self.allowed: Callable[[], bool] = lambda: True

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self.allowed()
        self.ran.append(len(images))
        self._clock.now += self._batch_s + self._image_s * len(images)
        answers = np.full((len(images), 2), 0.1, np.float32)
        answers[np.arange(len(images)), images[:, 0, 0, 0]] = 0.9
        return answers


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def sample(number: int, *, probability: float = 0.9) -> Golden:
    answer = Prediction(index=number, label="cup", probability=probability)
    return Golden(file=f"golden/{number}.jpg", sha256=SHA256, top_k=(answer,))


def golden(*samples: Golden, tolerance: float = 0.05) -> GoldenSamples:
    """Golden samples of pictures whose first byte is the expected class."""
    pixels = np.array([[[[sample.top_k[0]["index"]] * 3]] for sample in samples], np.uint8)
    return GoldenSamples("fake version 1", samples, pixels, tolerance)


GOLDEN = golden(sample(0), sample(1))


def placed(device: str, *sessions: Session) -> Placement:
    return Placement(device, "fp32", VARIANT, sessions, "for a test", "Provider", {})


def now(work: Callable[[], float]) -> float:
    return work()


def test_a_cpu_runs_the_largest_batch_and_the_smallest_once(clock: Clock) -> None:
    session = Answering(clock, 0, 1.0)
    assert warm_up(placed("cpu", session), GOLDEN, SIZES, now) == {6: 6.0, 1: 1.0}
    assert session.ran == [6, 1]


def test_where_kernels_are_chosen_by_size_each_runs_twice(clock: Clock) -> None:
    session = Answering(clock, 0, 1.0)
    assert warm_up(placed("openvino", session), GOLDEN, SIZES, now) == {6: 6.0, 3: 3.0, 1: 1.0}
    assert session.ran == [6, 6, 3, 3, 1, 1]


def test_gpus_run_side_by_side_and_the_slowest_counts(clock: Clock) -> None:
    gpus = [Answering(clock, 0, 1.0), Answering(clock, 0, 2.0)]
    assert warm_up(placed("cuda", *gpus), GOLDEN, SIZES, now) == {6: 12.0, 3: 6.0, 1: 2.0}
    assert gpus[0].ran == gpus[1].ran == [6, 6, 3, 3, 1, 1]


def test_the_caller_runs_one_batch_of_each_session_at_a_time(clock: Clock) -> None:
    running, batches = threading.Event(), list[list[int]]()
    sessions = [Answering(clock, 0, 1.0), Answering(clock, 0, 1.5)]
    for session in sessions:
        session.allowed = running.is_set

    def run(work: Callable[[], float]) -> float:
        before = [len(session.ran) for session in sessions]
        running.set()
        seconds = work()
        running.clear()
        batches.append([len(session.ran) - many for session, many in zip(sessions, before, strict=True)])
        return seconds

    warm_up(placed("cuda", *sessions), GOLDEN, SIZES, run)
    assert batches == [[1, 1]] * 6


def test_samples_fill_the_batch(clock: Clock) -> None:
    session = Answering(clock, 1.0, 0.5)
    assert GOLDEN.run(session, 5) == 3.5
    assert session.ran == [5]


def test_a_probe_asks_each_session_once(clock: Clock) -> None:
    first, second, wrong = Answering(clock, 0, 1.0), Answering(clock, 0, 1.0), Answering(clock, 0, 1.0)
    GOLDEN.probe((first, second))
    assert first.ran == second.ran == [1]
    with pytest.raises(InvalidManifest):
        golden(sample(0, probability=0.5)).probe((wrong, first))
    assert (wrong.ran, first.ran) == ([1], [1])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (golden(sample(0), sample(1, probability=0.83)), "to golden/1.jpg in a batch of 3 instead of class 1, cup"),
        (golden(sample(1, probability=0.1), tolerance=1.0), "answers class 0"),
    ],
)
def test_a_wrong_answer_is_an_error(clock: Clock, wrong: GoldenSamples, told: str) -> None:
    class Zero(Answering):
        def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return super().run(images * 0 if told == "answers class 0" else images)

    with pytest.raises(InvalidManifest, match=f"fake version 1 .*{told}"):
        wrong.run(Zero(clock, 0, 0), 3)


def test_nan_is_a_wrong_answer_and_a_failure_is_none() -> None:
    class Nan:
        def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.full((len(images), 2), np.nan, np.float32)

    class Failing:
        def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("Got invalid dimensions")

    with pytest.raises(InvalidManifest, match=r"\(nan\)"):
        GOLDEN.run(Nan(), 2)
    with pytest.raises(InvalidManifest, match="fake version 1 can't run a batch of 2: Got invalid dimensions"):
        GOLDEN.run(Failing(), 2)


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


@pytest.mark.parametrize(
    ("max_pixels", "damage", "told"),
    [(50_000_000, b"no picture", "not an image"), (50_000_000, None, "ends early"), (1000, b"", "pixels")],
)
def test_a_picture_that_can_not_be_decoded(
    folder: Path, tmp_path: Path, max_pixels: int, damage: bytes | None, told: str
) -> None:
    manifest = read_manifest(folder)
    photo = (folder / manifest.golden[0].file).read_bytes()
    content = photo[:5000] if damage is None else damage or photo
    (tmp_path / "photo").write_bytes(content)
    damaged = manifest.golden[0].model_copy(update={"file": "photo", "sha256": hashlib.sha256(content).hexdigest()})
    manifest = manifest.model_copy(update={"golden": (damaged,)})

    def decoded(data: bytes, row: NDArray[np.uint8]) -> None:
        decode(data, row, manifest.preprocessing, max_pixels)

    with pytest.raises(InvalidManifest, match=f"can't decode .*/photo: .*{told}"):
        GoldenSamples.read(tmp_path, manifest, manifest.variants[0], decoded)


@pytest.fixture
def _without_gc() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_gc")
def test_a_model_dies_with_the_last_reference_to_it(folder: Path) -> None:
    manifest = read_manifest(folder)
    settings = Settings(device="cpu", precision="int8", threads=2)
    pixels = list[weakref.ref[NDArray[np.uint8]]]()

    def decoded(data: bytes, row: NDArray[np.uint8]) -> None:
        decode(data, row, manifest.preprocessing, 50_000_000)
        assert isinstance(row.base, np.ndarray)
        pixels.append(weakref.ref(row.base))

    placement = place(folder, manifest, settings)
    samples = GoldenSamples.read(folder, manifest, placement.variant, decoded)
    warm_up(placement, samples, [1], now)
    sessions = [weakref.ref(session) for session in placement.sessions]
    del placement, samples
    assert [session() for session in sessions] == [None]
    assert pixels[0]() is None
