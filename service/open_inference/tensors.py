"""Tensors as clients send and get them: bytes to images, and probabilities to bytes. Knows neither HTTP nor gRPC."""

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter
from service.remembered import Image

INPUT, OUTPUT = "images", "probabilities"

_LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor
_JPEG_AS_LENGTH = _LENGTH.unpack(b"\xff\xd8\xff\xe0")[0]


class Tensor(NamedTuple):
    """A tensor of a request: its content is ``raw`` bytes, or else ``data``, a list that may be nested."""

    name: str
    datatype: str
    shape: Sequence[int]
    raw: memoryview | None
    data: Any = None


class Wanted(NamedTuple):
    """An output that a client asks for: the ``classes`` most probable classes, or all probabilities if 0."""

    classes: int = 0
    binary: bool = False


class Given(NamedTuple):
    """A tensor of an answer. ``values`` are float32, or for BYTES a list."""

    name: str
    datatype: str
    shape: list[int]
    values: NDArray[np.float32] | list[bytes]

    def raw(self) -> bytes:
        """Return the content as a binary tensor."""
        if isinstance(self.values, list):
            return b"".join(_LENGTH.pack(len(value)) + value for value in self.values)
        return self.values.astype("<f4", copy=False).tobytes()

    def data(self) -> list[Any]:
        """Return the content as JSON takes it: flat."""
        if isinstance(self.values, list):
            return [value.decode() for value in self.values]
        flat: list[float] = self.values.ravel().tolist()
        return flat


def images(inputs: Sequence[Tensor], height: int, width: int, most: int) -> Sequence[Image]:
    """Return the images of a request: pixels as rows ``[height, width, 3]``, or pictures' files.

    Raises InvalidParameter unless there is one input ``images``, of UINT8 ``[n, height, width, 3]`` or BYTES ``[n]`` or
    ``[n, 1]``, with 1 to ``most`` images.
    """
    names = [tensor.name for tensor in inputs]
    if names != [INPUT]:
        raise InvalidParameter(f"unexpected inference inputs {names!r:.200}: there is one input, {INPUT!r}")
    (tensor,) = inputs
    shape, pixels = list(tensor.shape), [height, width, 3]
    if tensor.datatype == "BYTES" and (len(shape) == 1 or shape[1:] == [1]):
        return _pictures(tensor, _count(shape, most))
    if tensor.datatype == "UINT8" and shape[1:] == pixels:
        return list(_pixels(tensor, [_count(shape, most), *pixels]))
    raise InvalidParameter(
        f"{INPUT!r} is {tensor.datatype!r:.50} {shape!r:.100}: it must be UINT8 [n, {height}, {width}, 3], "
        "or BYTES [n] with the bytes of a picture in each element"
    )


def _count(shape: Sequence[int], most: int) -> int:
    if not 1 <= shape[0] <= most:
        raise InvalidParameter(f"a request of {shape[0]} images: it must have 1 to {most}")
    return shape[0]


def _pixels(tensor: Tensor, shape: list[int]) -> NDArray[np.uint8]:
    size = math.prod(shape)
    if tensor.raw is not None:
        if len(tensor.raw) != size:
            raise InvalidParameter(f"{INPUT!r} has {len(tensor.raw)} bytes: its shape {shape} needs {size}")
        return np.frombuffer(tensor.raw, np.uint8).reshape(shape)
    # As objects, the values stay what they are. Numbers and texts in one array of another type would take gigabytes.
    values = np.asarray(tensor.data, dtype=object).ravel()
    kinds = {type(value).__name__ for value in values}
    if len(values) != size or kinds != {"int"}:
        found = f"{len(values)} values of the kinds {', '.join(sorted(kinds))}"
        raise InvalidParameter(f"the data of {INPUT!r} is {found}: its shape {shape} needs {size} whole numbers")
    if min(values) < 0 or max(values) > 255:
        raise InvalidParameter(f"the data of {INPUT!r} has numbers that are no pixels: pixels are 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _pictures(tensor: Tensor, count: int) -> Sequence[bytes]:
    if tensor.raw is not None:
        elements = list(itertools.islice(_elements(tensor.raw), count + 1))  # a million may be empty
    elif isinstance(tensor.data, list) and all(isinstance(element, bytes) for element in tensor.data):
        elements = tensor.data
    else:
        raise InvalidParameter("JSON holds no picture's bytes: send BYTES as a binary tensor, or POST to /classify")
    if len(elements) != count:
        more = "more" if len(elements) > count else "fewer"
        raise InvalidParameter(f"{INPUT!r} has {more} elements than its shape says, {count}")
    return elements


def _elements(raw: memoryview) -> Iterator[bytes]:
    """Yield the elements of a binary BYTES tensor."""
    while raw:
        if len(raw) < _LENGTH.size:
            raise InvalidParameter(f"a BYTES element begins with its length in 4 bytes, and {len(raw)} are left")
        (length,) = _LENGTH.unpack(raw[: _LENGTH.size])
        raw = raw[_LENGTH.size :]
        if length > len(raw):
            bare = ": the element's length is missing, this is a bare JPEG" if length == _JPEG_AS_LENGTH else ""
            raise InvalidParameter(f"a BYTES element of {length} bytes, and {len(raw)} are left{bare}")
        yield bytes(raw[:length])
        raw = raw[length:]


def given(probabilities: NDArray[np.float32], wanted: Wanted, labels: Sequence[str]) -> Given:
    """Return ``probabilities`` ``[n, classes]`` as they are wanted: whole, or as texts ``score:index:label``."""
    if not wanted.classes:
        return Given(OUTPUT, "FP32", list(probabilities.shape), probabilities)
    best = (-probabilities).argsort(axis=1, kind="stable")[:, : wanted.classes]
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}".encode()
        for row, order in zip(probabilities, best, strict=True)
        for index in order.tolist()
    ]
    return Given(OUTPUT, "BYTES", list(best.shape), texts)
