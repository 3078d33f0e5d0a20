from __future__ import annotations

import numpy as np

from service.pixel_slab import PixelSlab


def slab(rows: int = 6) -> PixelSlab:
    return PixelSlab(rows, max_batch_size=4, height=2, width=2)


def filled(pixels: PixelSlab, rows: list[int]) -> None:
    for row in rows:
        pixels[row][...] = row


def test_rows_run_out_and_come_back() -> None:
    pixels = slab(rows=2)
    rows = [pixels.lease(), pixels.lease()]
    assert rows == [0, 1]
    assert pixels.lease() is None
    assert len(pixels) == 2
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
