"""JPEG: its segments, of which few hold the picture, and its end, which some files lack."""

import re
import struct

from service.errors import InvalidImage, UnsupportedType
from service.inference.formats.stored import Stored
from service.inference.formats.tiff import orientation_of

_SEGMENT = re.compile(rb"\xff([^\x00\xff])")
_SCAN = re.compile(rb"\xff\xda..(.)", re.DOTALL)
_APPLICATION, _COMMENT, _START_OF_SCAN, _END = range(0xE0, 0xF0), 0xFE, 0xDA, b"\xff\xd9"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7 is JPEG-LS'
_READ_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}  # not the hierarchical ones
_COLOURS = (b"JFIF\0", b"Adobe")  # applications whose segments say what the components are
_JUNK = b"\xa5\x3c\x96\x71" * 50  # what a decoder takes for further pixels, if it still needs some


def bare(data: bytes) -> Stored:
    """Return the JPEG with nothing but what its pixels need. Raises UnsupportedType for frames that aren't read.

    Some writers leave out the end marker. Whether the pixels are all there shows when two files that go on in different
    ways give the same pixels. Raises InvalidImage where coefficients were never sent.
    """
    kept, components, orientation, at = [data[:2]], b"", 1, 2
    while found := _SEGMENT.search(data, at):
        marker, at = found[1][0], found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _START_OF_SCAN:
            kept.append(data[found.start() :])
            break
        end = at + struct.unpack_from(">H", data, at)[0]
        segment = data[at + 2 : end]
        if marker in _FRAMES:
            components = segment[6::3]
            if marker not in _READ_FRAMES or segment[0] != 8 or len(components) not in (1, 3, 4):
                raise UnsupportedType(
                    f"this is a JPEG of {len(components)} components of {segment[0]} bits (frame {marker - 0xC0}),"
                    " which is not read"
                )
        if marker == 0xE1 and segment.startswith(b"Exif\0\0") and orientation == 1:
            orientation = orientation_of(segment)
        elif segment.startswith(_COLOURS) or (marker not in _APPLICATION and marker != _COMMENT):
            kept.append(data[found.start() : end])
        at = end
    if kept[-1].rfind(_END) >= 0:  # from behind, where the marker is found at once
        return Stored(b"".join(kept), orientation)
    pixels = b"".join(kept).rstrip(b"\xff")  # half a marker
    if not _sent(kept[-1], components) or pixels.endswith(b"\0\0"):  # zeros are padding, which a decoder would decode
        raise InvalidImage("the image ends early: its end marker and some of its pixels are missing")
    return Stored(pixels + _END, orientation, pixels + _JUNK + _END)


def _sent(scans: bytes, components: bytes) -> bool:
    """Return whether the ``scans`` send all 64 coefficients of each of the ``components`` down to the last bit."""
    missing = {(component, k): -1 for component in components for k in range(64)}
    for scan in _SCAN.finditer(scans):
        end = scan.end() + 2 * scan[1][0]
        first, last, bits = scans[end : end + 3]
        for component in scans[scan.end() : end : 2]:
            missing.update({(component, k): bits & 15 for k in range(first, last + 1)})
    return not any(missing.values())
