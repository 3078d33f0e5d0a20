"""JPEG photos decoded a second: by Pillow in threads, as in the service, and by torchvision's nvJPEG on the GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.record import Record, rate
from bench.gpu.setup import Setup
from bench.in_process import InProcess
from bench.timing import in_turns
from service.settings import available_cpus

COUNT = 64


def measure(setup: Setup, record: Record) -> None:
    """Decode repeated photos with Pillow into the model's input, and with nvJPEG, without and with the resize."""
    photos = list(itertools.islice(itertools.cycle(photo.data for photo in setup.model.photos), COUNT))
    way, cpus = setup.placed(setup.precision, 1), available_cpus()
    rows = way.empty(COUNT)
    work = dict[str, Callable[[], object]]()
    for threads in sorted({1, max(1, cpus // 2), cpus, 2 * cpus}):
        pool = ThreadPoolExecutor(threads)
        for fast in (True, False):
            name = f"pillow_{'fast' if fast else 'exact'}_{threads}_threads"
            work[name] = partial(_by_pillow, pool, way, photos, rows, fast=fast)
    if setup.on_gpu:
        files = [torch.frombuffer(bytearray(photo), dtype=torch.uint8) for photo in photos]
        by_gpu: dict[str, Callable[[], object]] = {
            "nvjpeg": partial(_by_nvjpeg, files),
            "nvjpeg_resized": partial(_resized, files),
        }
        for name, run in by_gpu.items():
            if record.attempt(run, name):
                work[name] = run
    for name, seconds in in_turns(work, rounds=3).items():
        record.put(rate(COUNT, seconds), "photos", name)


def _by_pillow(
    pool: ThreadPoolExecutor, way: InProcess, photos: list[bytes], rows: NDArray[np.uint8], *, fast: bool
) -> None:
    list(pool.map(partial(way.decode, fast=fast), photos, rows))


def _by_nvjpeg(files: list[torch.Tensor]) -> list[torch.Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    decoded: list[torch.Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device="cuda")
    torch.cuda.synchronize()
    return decoded


def _resized(files: list[torch.Tensor]) -> torch.Tensor:
    """Return the network's input, uint8 ``[n, 299, 299, 3]`` on the GPU, from photos squashed to the square."""
    rows = [
        torch.nn.functional.interpolate(image[None].half(), (299, 299), mode="bilinear", antialias=True)
        for image in _by_nvjpeg(files)
    ]
    batch = torch.cat(rows).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
    torch.cuda.synchronize()
    return batch
