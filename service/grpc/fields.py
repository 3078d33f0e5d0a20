"""Bounds what a message makes protobuf allocate, before protobuf reads it.

An empty input takes two bytes of a message, and a hundred as an object. 20 MB of them would stop the event loop for two
seconds. https://protobuf.dev/programming-guides/encoding/ describes the bytes.
"""

from collections.abc import Iterator
from itertools import islice

from service.errors import InvalidParameter

_MOST_FIELDS = 1000
_MOST_NUMBERS = 1_250_000  # bytes of one list of numbers: pixels of two images. A million take 60 ms of the event loop
_Path = tuple[int, ...]
_MOST_SHAPE = 80  # bytes of a shape's numbers
# Fields of ModelInferRequest, by their numbers.
_INPUTS, _OUTPUTS, _SHAPE, _CONTENTS, _PICTURES = (5,), (6,), (5, 3), (5, 5), (5, 5, 8)


def check(message: bytes) -> None:
    """Raise InvalidParameter if a request has more parts than it can need, or is no message at all."""
    fields = _fields(memoryview(message))
    for path, size in islice(fields, _MOST_FIELDS):
        if path == _SHAPE and size > _MOST_SHAPE:
            raise InvalidParameter(f"a shape has {size} bytes, and {_MOST_SHAPE} are enough")
        if path[:-1] == _CONTENTS and path != _PICTURES and size > _MOST_NUMBERS:
            raise InvalidParameter(f"{size} bytes of numbers: send a tensor of this size in raw_input_contents")
    if next(fields, None) is not None:
        raise InvalidParameter(f"the message has more than {_MOST_FIELDS} fields")


def _fields(message: memoryview, path: _Path = ()) -> Iterator[tuple[_Path, int]]:
    """Yield the path and the size of each field that protobuf makes an object of, and of those inside."""
    while message:
        tag, message = _number(message)
        here, kind, size = (*path, tag >> 3), tag & 7, 0
        if kind == 0:
            _, message = _number(message)
        elif kind == 2:
            size, message = _number(message)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise InvalidParameter("the message is not of this protocol")
        if size > len(message):
            raise InvalidParameter("the message ends early")
        yield here, size
        if kind == 2 and here in (_INPUTS, _OUTPUTS, _CONTENTS):
            yield from _fields(message[:size], here)
        message = message[size:]


def _number(message: memoryview) -> tuple[int, memoryview]:
    """Return the number that begins a message, and what follows."""
    value = 0
    for index, byte in enumerate(message[:10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, message[index + 1 :]
    raise InvalidParameter("the message ends early")
