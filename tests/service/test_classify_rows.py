"""Rows come in the photos' order, however long each photo takes, and a bounded number is asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from service.classify_photos.answers import Answer, Model, Row, rows
from service.errors import InvalidImage, QueueFull, Unavailable
from tests.service.scheduling.gated_session import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Twenty files that hold their own numbers."""
    files = [tmp_path / str(number) for number in range(20)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number)
    return list(map(str, files))


def answer(photo: bytes) -> Answer:
    return Answer(photo.decode(), 1, trained=True, predictions=[])


async def collected(photos: list[str], ask: Callable[[bytes], Awaitable[Answer]], found: list[Row]) -> None:
    async with aclosing(rows(photos, Model(ask, 3), 100)) as coming:
        async for row in coming:
            found.append(row)  # noqa: PERF401 - the rows before an error count, too


async def test_order_is_the_input_s_and_no_more_are_asked_than_may_be(photos: list[str]) -> None:
    gates = {b"%d" % number: asyncio.Event() for number in range(20)}
    asking: set[bytes] = set()
    most = 0
    found: list[Row] = []

    async def ask(photo: bytes) -> Answer:
        asking.add(photo)
        nonlocal most
        most = max(most, len(asking))
        await gates[photo].wait()
        asking.remove(photo)
        return answer(photo)

    task = asyncio.create_task(collected(photos, ask, found))
    for number in range(1, 20):  # the first photo takes longest, and the others go on
        await until(lambda: b"%d" % number in asking)  # noqa: B023
        gates[b"%d" % number].set()
    await until(lambda: asking == {b"0"})
    assert (found, most) == ([], 3)
    gates[b"0"].set()
    await task
    assert [row.path for row in found] == photos
    assert [row.outcome for row in found] == [answer(b"%d" % number) for number in range(20)]


async def test_what_is_refused_for_now_is_asked_again_and_a_fault_is_a_row(photos: list[str]) -> None:
    refused = {b"3", b"4"}
    found: list[Row] = []

    async def ask(photo: bytes) -> Answer:
        if photo in refused:
            refused.remove(photo)
            raise QueueFull("full", retry_after=0.0)
        if photo == b"5":
            raise InvalidImage("damaged")
        return answer(photo)

    await collected(photos, ask, found)
    assert [row.path for row in found] == photos
    assert [row.path for row in found if row.outcome == "damaged"] == [photos[5]]
    assert not refused


async def test_a_model_that_fails_ends_the_rows_after_those_before(photos: list[str]) -> None:
    found: list[Row] = []

    async def ask(photo: bytes) -> Answer:
        if photo == b"7":
            raise Unavailable("3 batches in a row failed")
        return answer(photo)

    others = asyncio.all_tasks()
    with pytest.raises(Unavailable, match="3 batches"):
        await collected(photos, ask, found)
    assert [row.path for row in found] == photos[:7]
    assert asyncio.all_tasks() == others


async def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(101))
    (tmp_path / "fits").write_bytes(bytes(100))
    found: list[Row] = []

    async def ask(photo: bytes) -> Answer:
        return Answer(f"{len(photo)} bytes", 1, trained=True, predictions=[])

    await collected([str(tmp_path / name) for name in ("large", "fits", "missing")], ask, found)
    assert found[0].outcome == "the file has more than the 100 bytes that max_body_bytes allows"
    assert isinstance(found[1].outcome, Answer)
    assert found[2].outcome == "can't read the file: No such file or directory"
