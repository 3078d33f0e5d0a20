"""Content codings (RFC 9110). A body is decoded piece by piece, so that a small body never becomes a large piece."""

import zlib
from collections.abc import Callable, Iterable, Iterator

from service.errors import InvalidParameter, UnsupportedEncoding

_PIECE_BYTES = 64 * 1024
_GZIP, _DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}

_SMALL = 1024  # bytes; compressing less than this saves no packet

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


def compressed(content: bytes, accepted: str) -> tuple[str | None, bytes]:
    """Return the coding for an answer and the coded answer, by the value of the request's ``Accept-Encoding``."""
    weights = dict(_weight(part) for part in accepted.lower().split(","))
    coding = max(("gzip", "deflate"), key=lambda name: weights.get(name, 0.0))
    if not weights.get(coding) or len(content) < _SMALL:
        return None, content
    deflater = zlib.compressobj(1, wbits=_FORMATS[coding])
    return coding, deflater.compress(content) + deflater.flush()


def _weight(part: str) -> tuple[str, float]:
    name, _, weight = part.partition(";q=")
    try:
        return name.strip(), float(weight or 1)
    except ValueError:
        return name.strip(), 0.0
