"""GIF: its extensions, of which a still picture needs the one that says which colour is transparent."""

from service.errors import InvalidImage
from service.inference.formats.stored import Stored

_EXTENSION, _FRAME, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def bare(data: bytes) -> Stored:
    """Return the GIF without comments and other extensions before its first frame."""
    flags = data[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    kept = [data[:at]]
    while data[at] == _EXTENSION:
        start, at = at, at + 2
        while data[at]:  # blocks of up to 255 bytes, the last of which is empty
            at += 1 + data[at]
        at += 1
        if data[start + 1] == _GRAPHIC_CONTROL:
            kept.append(data[start:at])
    if data[at] != _FRAME:
        raise InvalidImage("the GIF has no picture")
    return Stored(b"".join(kept) + data[at:])
