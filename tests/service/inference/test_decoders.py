"""Decoders are real processes, and the bombs are real pictures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.bombs import BOMBS, many_scans, png
from service.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, QueueFull, ServiceError, Unavailable
from service.inference.decoder_process import How
from service.inference.decoders import Decoders
from service.inference.image import Preprocessing, decode
from service.settings import ModelSettings

HOW = How(Preprocessing(0.875, "center", "bicubic"), 50_000_000, fast=True)
SLOW = many_scans(6000, 400)  # 14,400 million pixels to go over


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    started = Decoders(ModelSettings(decoders=1))
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def photo(kitchenware_photos: list[tuple[Path, str | None]]) -> bytes:
    return kitchenware_photos[0][0].read_bytes()


def in_time(decoders: Decoders, data: bytes, seconds: float = 30.0) -> NDArray[np.uint8]:
    """Decode in the decoder that suits ``data``."""
    out = np.zeros((299, 299, 3), np.uint8)
    with decoders.admit(data) as pool:
        pool.decode(data, HOW, time.monotonic() + seconds, out)
    return out


def pids(decoders: Decoders) -> list[int]:
    found = [decoder._process for pool in (decoders.ordinary, decoders.unusual) for decoder in pool._decoders]
    return [process.pid for process in found if process is not None]


def test_a_decoder_gives_the_pixels_that_this_process_would(decoders: Decoders, photo: bytes) -> None:
    expected = np.zeros((299, 299, 3), np.uint8)
    decode(photo, expected, *HOW)
    np.testing.assert_array_equal(in_time(decoders, photo), expected)


def test_a_fault_of_the_picture_is_told_and_holds_nothing(decoders: Decoders, photo: bytes) -> None:
    before = pids(decoders)
    with pytest.raises(InvalidImage, match="ends early") as told:
        in_time(decoders, photo[: len(photo) // 2])
    assert told.value.__cause__ is told.value.__context__ is None
    assert pids(decoders) == before
    in_time(decoders, photo)


def test_a_picture_that_takes_too_long_ends_its_decoder(decoders: Decoders, photo: bytes) -> None:
    before, ended = pids(decoders), decoders.unusual.ended
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="until its deadline"):
        in_time(decoders, SLOW, 0.5)
    assert time.monotonic() - start < 1.5
    assert decoders.unusual.ended == ended + 1
    in_time(decoders, photo)
    in_time(decoders, png(65_000, 700))  # the next unusual picture gets another decoder
    assert [now == then for now, then in zip(pids(decoders), before, strict=True)] == [True, False]


def test_a_picture_that_waited_too_long_is_not_begun(decoders: Decoders, photo: bytes) -> None:
    with pytest.raises(DeadlineExceeded, match="waited for a decoder"):
        in_time(decoders, photo, 0.0)


def test_a_picture_that_takes_too_much_memory_is_told_so(decoders: Decoders) -> None:
    out = np.zeros((299, 299, 3), np.uint8)
    with pytest.raises(ImageTooLarge, match="takes more than 256 MB"):  # a decoder of ordinary pictures gets it
        decoders.ordinary.decode(png(9000, 5500, depth=16), HOW, time.monotonic() + 30, out)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGSEGV, InvalidImage), (signal.SIGKILL, Unavailable), (signal.SIGTERM, InvalidImage)]
)
def test_a_decoder_that_dies_is_replaced(
    decoders: Decoders, photo: bytes, number: signal.Signals, error: type[ServiceError]
) -> None:
    os.kill(pids(decoders)[0], number)
    with pytest.raises(error):
        in_time(decoders, photo)
    in_time(decoders, photo)


def test_few_unusual_pictures_are_admitted_at_a_time(decoders: Decoders, photo: bytes) -> None:
    admitted = [decoders.admit(SLOW) for _ in range(5)]
    for one in admitted[:4]:
        assert one.__enter__() is decoders.unusual
    with pytest.raises(QueueFull, match="unusual structure"):
        admitted[4].__enter__()
    with decoders.admit(photo) as pool:
        assert pool is decoders.ordinary
    for one in admitted[:4]:
        one.__exit__(None, None, None)
    with decoders.admit(SLOW) as pool:
        assert pool is decoders.unusual


def test_decoders_that_do_not_come_back_are_noticed(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    out, since = np.zeros((299, 299, 3), np.uint8), time.monotonic()
    assert decoders.stuck is None
    stuck = decoders.ordinary.threads.submit(decoders.ordinary.decode, SLOW, HOW, since + 2.0, out)
    while not decoders.ordinary.busy:
        pass
    assert decoders.stuck is None
    monkeypatch.setattr(time, "monotonic", lambda: since + 7.0)
    assert decoders.stuck == "no picture was decoded for 7 s"
    monkeypatch.undo()
    with pytest.raises(DeadlineExceeded):
        stuck.result()
    assert decoders.stuck is None


def test_closing_ends_decoders_whatever_they_do() -> None:
    closing = Decoders(ModelSettings(decoders=1))
    out = np.zeros((299, 299, 3), np.uint8)
    busy = closing.unusual.threads.submit(closing.unusual.decode, SLOW, HOW, time.monotonic() + 600, out)
    while not pids(closing):
        pass
    (pid,) = pids(closing)
    closing.close()
    with pytest.raises(Unavailable):
        busy.result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(decoders: Decoders, photo: bytes, name: str) -> None:
    """Each ends by its deadline of 1 s, and leaves decoders behind that work."""
    build, statuses = BOMBS[name]
    bomb, start = build(), time.monotonic()
    assert len(bomb) <= 20_000_000
    try:
        in_time(decoders, bomb, 1.0)
        status = 200
    except InvalidImage:
        status = 400
    except ImageTooLarge:
        status = 413
    except DeadlineExceeded:
        status = 504
    assert time.monotonic() - start < 2.5
    assert status in statuses
    in_time(decoders, photo)
