from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.scheduling.pixel_slab import PixelSlab


def slab(rows: int = 6) -> PixelSlab:
    return PixelSlab(rows, max_batch_size=4, height=2, width=2)


def filled(pixels: PixelSlab, rows: list[int]) -> None:
    for row in rows:
        pixels[row][...] = row


def test_rows_run_out_and_come_back() -> None:
    pixels = slab(rows=2)
    rows = [pixels.lease(), pixels.lease()]
    assert rows == [0, 1]
    assert (pixels.free, len(pixels)) == (0, 2)
    pixels.give_back(0)
    assert pixels.lease() == 0


def test_neighbouring_rows_are_batched_without_a_copy() -> None:
    pixels = slab()
    filled(pixels, [2, 3, 4])
    batch = pixels.batch([2, 3, 4], 4)
    assert batch.shape == (4, 2, 2, 3)
    assert batch[:3, 0, 0, 0].tolist() == [2, 3, 4]
    assert np.shares_memory(batch, pixels[2])


def test_the_last_rows_can_be_padded() -> None:
    pixels = slab()
    filled(pixels, [5])
    assert pixels.batch([5], 4).shape == (4, 2, 2, 3)


def test_scattered_rows_are_gathered_in_order() -> None:
    pixels = slab()
    filled(pixels, [0, 1, 2, 3, 4, 5])
    batch = pixels.batch([4, 0, 3], 4)
    assert batch[:3, 0, 0, 0].tolist() == [4, 0, 3]
    assert batch.shape == (4, 2, 2, 3)


def test_each_slot_gathers_into_memory_of_its_own() -> None:
    pixels = PixelSlab(6, max_batch_size=2, height=2, width=2, slots=2)
    filled(pixels, [0, 1, 2, 3])
    batches = [pixels.batch([0, 2], 2, slot=0), pixels.batch([3, 1], 2, slot=1)]
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 2], [3, 1]]


def test_all_memory_that_batches_are_taken_from_is_pinned() -> None:
    pinned: list[NDArray[np.uint8]] = []
    pixels = PixelSlab(6, max_batch_size=2, height=2, width=2, slots=2, pin=pinned.append)
    batches = [pixels.batch([0, 1], 2), pixels.batch([0, 2], 2, slot=0), pixels.batch([0, 2], 2, slot=1)]
    assert [[np.shares_memory(batch, memory) for memory in pinned] for batch in batches] == np.eye(3).tolist()
