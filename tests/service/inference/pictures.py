"""Small pictures for the tests of decoding, and what the decoder makes of them without any resampling."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.inference.image import Preprocessing, decode

SIDE = 64  # of every picture here
Pixels = NDArray[np.uint8]

RAMP = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))  # grey, from 0 to 1
RGB = np.stack([RAMP, RAMP.T, RAMP[:, ::-1]], axis=-1)
ALPHA = np.tile(np.arange(SIDE)[:, None] % 3 / 2.0, (1, SIDE))


def pixels_of(data: bytes, **options: Any) -> Pixels:
    """Decode a picture of SIDE x SIDE pixels, uint8 [SIDE, SIDE, 3]."""
    out = np.full((SIDE, SIDE, 3), 7, np.uint8)
    decode(data, out, Preprocessing(1.0, "squash", "bilinear"), 50_000_000, **options)
    return out


def assert_shows(data: bytes, wanted: NDArray[Any], levels: float = 2) -> None:
    """Check a picture against ``wanted``, from 0 to 1, grey or RGB."""
    wanted = wanted if wanted.ndim == 3 else wanted[..., None]
    assert np.abs(pixels_of(data) - wanted * 255.0).max() <= levels


def over_white(colours: NDArray[Any], alpha: NDArray[Any]) -> Any:
    alpha = alpha if alpha.ndim == colours.ndim else alpha[..., None]
    return colours * alpha + 1 - alpha


def scaled(values: NDArray[Any], bits: int) -> Any:
    """Return unsigned samples of ``bits``, of values from 0 to 1."""
    most = 2**bits - 1
    return np.minimum(np.round(values * most), most).astype(np.min_scalar_type(most))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo_like() -> Image.Image:
    """A picture with some detail everywhere, so that no part of it could be missing unnoticed."""
    noise = np.random.default_rng(1).normal(0, 20, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(RGB * 255 + noise, 0, 255).astype(np.uint8))
