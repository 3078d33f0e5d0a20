"""Undoes a body's ``Content-Encoding`` (RFC 9110), piece by piece, so that a small body never becomes a large piece."""

import zlib
from collections.abc import Callable, Iterable, Iterator

from service.errors import InvalidParameter, UnsupportedEncoding

_PIECE_BYTES = 64 * 1024
_GZIP, _DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}

Decode = Callable[[bytes, bool], Iterable[bytes]]  # takes the next chunk and whether more will come


def decoder(coding: str) -> Decode:
    """Return what decodes the chunks of a body in order, for the value of its ``Content-Encoding``.

    The call raises UnsupportedEncoding. What it returns raises InvalidParameter for a body that is damaged, ends
    early or goes on after its end.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return lambda chunk, _: [chunk]
    if coding not in _FORMATS:
        raise UnsupportedEncoding(f"the body's Content-Encoding is {coding!r}: send gzip, deflate or none")
    inflater = zlib.decompressobj(_FORMATS[coding])

    def inflate(chunk: bytes, more: bool) -> Iterator[bytes]:
        try:
            while chunk:
                yield inflater.decompress(chunk, _PIECE_BYTES)
                chunk = inflater.unconsumed_tail
            if not more:
                yield inflater.flush()  # the rest of one piece at most
        except zlib.error as error:
            raise InvalidParameter(f"the body is not what its Content-Encoding, {coding}, says: {error}") from error
        if inflater.unused_data:
            raise InvalidParameter(f"the body goes on after the end of its {coding} data")
        if not (more or inflater.eof):
            raise InvalidParameter(f"the body's {coding} data ends early")

    return inflate
