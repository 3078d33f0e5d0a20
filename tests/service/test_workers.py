"""Threads that take work in turn."""

from __future__ import annotations

import functools
import threading

import pytest

from service.workers import Workers
from tests.service.scheduling.gated_session import PATIENCE_S


def test_each_thread_takes_what_comes_next() -> None:
    both = threading.Barrier(2)
    names: list[str] = []

    def work() -> None:
        both.wait(PATIENCE_S)
        names.append(threading.current_thread().name)

    workers = Workers(2, "decode")
    for _ in range(2):
        workers.submit(work)
    workers.close()
    assert sorted(names) == ["decode-0", "decode-1"]


def test_closing_waits_for_what_was_submitted_and_ends_the_threads() -> None:
    done: list[int] = []
    workers = Workers(1, "closing")
    for number in range(3):
        workers.submit(functools.partial(done.append, number))
    workers.close()
    workers.submit(lambda: done.append(3))
    assert done == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("closing")]


def test_work_that_fails_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("no such thing")

    workers = Workers(1, "failing")
    workers.submit(fail)
    workers.submit(done.set)
    assert done.wait(PATIENCE_S)
    workers.close()
    assert "no such thing" in caplog.text
