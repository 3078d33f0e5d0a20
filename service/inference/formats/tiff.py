"""TIFF: its directories, which are EXIF's too, and the page that is the picture.

The rules:
- The picture is the largest page, be it in the chain of pages or among their children (SubIFDs). A camera's raw file
  has a small preview as its first page, and its raw pixels are no picture yet.
- Samples are read where the specification says which value is white: unsigned integers up to 32 bits. Floats are read
  where all of them are from 0 to 1, which ``colours`` checks. Signed integers have no white.
"""

import io
import struct
from dataclasses import dataclass
from typing import Self

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from service.errors import UnsupportedType
from service.inference.formats.stored import Stored

# libtiff knows every layout of pixels. Pillow's own reader of uncompressed files takes some layouts for others.
TiffImagePlugin.READ_LIBTIFF = True

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # struct's letters, by TIFF's types
_SAMPLES = {1: "unsigned", 2: "signed", 3: "float"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES_PER_PIXEL, _PLANAR, _CHILDREN, _SAMPLE_FORMAT = 274, 277, 284, 330, 339
_COLOUR_MAP, _INK_SET = 320, 332
# Tags that decide what the pixels are; the others are metadata. Those from 512 to 521 and 347 are JPEG's.
_PIXELS = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _PLANAR, _SAMPLE_FORMAT, _COLOUR_MAP),
    *(266, 273, 278, 279, 292, 293, 317, 322, 323, 324, 325, 338, 347, 529, 530, 531, 532),
    *range(512, 522),
}


@dataclass(frozen=True)
class Directory:
    """One directory (IFD) of a TIFF file: its entries, as bytes by tag, and the offset of the next directory, or 0."""

    data: bytes
    order: str  # struct's sign of the byte order
    word: str  # struct's letter of an offset: 4 bytes, or 8 in BigTIFF
    entries: dict[int, bytes]
    following: int

    @classmethod
    def read(cls, data: bytes, at: int | None = None) -> Self:
        """Read the directory at offset ``at``, or the first. Raises KeyError or struct.error if there is none."""
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        word, count = ("Q", "Q") if big else ("I", "H")
        if at is None:
            (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
        start, step = at + struct.calcsize(count), 20 if big else 12
        end = start + step * struct.unpack_from(order + count, data, at)[0]
        entries: dict[int, bytes] = {}
        for i in range(start, min(end, len(data) - step + 1), step):
            entries.setdefault(struct.unpack_from(f"{order}H", data, i)[0], data[i : i + step])
        following = struct.unpack_from(order + word, data, end)[0] if end + struct.calcsize(word) <= len(data) else 0
        return cls(data, order, word, entries, following)

    def integers(self, tag: int, default: int = 0) -> tuple[int, ...]:
        """Return the integers of ``tag``, or ``default`` alone if it has none. Raises struct.error if they are cut."""
        entry = self.entries.get(tag, bytes(20))
        kind, count = struct.unpack_from(f"{self.order}H{self.word}", entry, 2)
        if kind not in _INTEGERS or not count:
            return (default,)
        values, at = f"{self.order}{count}{_INTEGERS[kind]}", struct.calcsize(f"=HH{self.word}")
        if struct.calcsize(values) <= struct.calcsize(self.word):
            return struct.unpack_from(values, entry, at)
        return struct.unpack_from(values, self.data, *struct.unpack_from(self.order + self.word, entry, at))

    @property
    def area(self) -> int:
        """The number of pixels."""
        return self.integers(_WIDTH)[0] * self.integers(_HEIGHT)[0]

    def __str__(self) -> str:
        kind, bits = _SAMPLES.get(self.integers(_SAMPLE_FORMAT, 1)[0], "unknown"), self.integers(_BITS, 1)[0]
        return (
            f"a TIFF of {bits} bits a sample, {self.integers(_SAMPLES_PER_PIXEL, 1)[0]} {kind} samples a pixel"
            f" (photometric {self.integers(_PHOTOMETRIC, -1)[0]}, compression {self.integers(_COMPRESSION, 1)[0]})"
        )

    def alone(self) -> bytes:
        """Return the file with this directory as the only one, and in it only what the pixels need."""
        kept = [self.entries[tag] for tag in sorted(_PIXELS & self.entries.keys())]
        start = 8 if self.word == "Q" else 4
        first = struct.calcsize(self.word) + start
        padding = bytes(len(self.data) % 2)  # offsets are even
        offset = struct.pack(self.order + self.word, len(self.data) + len(padding))
        count = struct.pack(self.order + ("Q" if self.word == "Q" else "H"), len(kept))
        return b"".join((self.data[:start], offset, self.data[first:], padding, count, *kept, bytes(len(offset))))


def orientation_of(exif: bytes) -> int:
    """Return EXIF's orientation, from 1 to 8; 1 if ``exif`` has none or is broken."""
    try:
        return _orientation(Directory.read(exif.removeprefix(b"Exif\0\0")))
    except (KeyError, OverflowError, struct.error):
        return 1


def _orientation(directory: Directory) -> int:
    orientation = directory.integers(_ORIENTATION, 1)[0]
    return orientation if 1 <= orientation <= 8 else 1


def _pages(data: bytes) -> dict[int, Directory]:
    """Return the pages and their children, by offset."""
    first = Directory.read(data)
    pages, waiting = {0: first}, [first]
    for page in waiting:
        for at in (page.following, *page.integers(_CHILDREN)):
            if at and at not in pages:
                pages[at] = Directory.read(data, at)
                waiting.append(pages[at])
    return pages


def _surely_read(page: Directory) -> bool:
    """Return whether Pillow, where it opens the page, takes its samples for what they are."""
    samples = page.integers(_SAMPLE_FORMAT, 1)[0]
    if samples == 2 or (samples == 3 and page.order == ">"):  # Pillow swaps bytes that libtiff has swapped before
        return False
    grey = page.integers(_PHOTOMETRIC, -1)[0] in (0, 1, 3)
    if grey and page.integers(_SAMPLES_PER_PIXEL, 1)[0] > 1 and page.integers(_PLANAR, 1)[0] == 2:
        return False
    if max(page.integers(_COLOUR_MAP)) in range(1, 256):  # colours have 16 bits, unless they are all nearly black
        return False
    return page.integers(_INK_SET, 1)[0] == 1  # inks are cyan, magenta, yellow and black


def bare(data: bytes) -> Stored:
    """Return the largest page alone. Raises UnsupportedType for samples that aren't surely read, and for raw files."""
    page = max(_pages(data).values(), key=lambda page: page.area)
    if not _surely_read(page) or page.integers(_SUBFILE)[0] & 1:  # the latter is a preview
        raise UnsupportedType(f"this is {page}, which is not read")
    stored = Stored(page.alone(), _orientation(page))
    try:
        Image.open(io.BytesIO(stored.data), formats=["TIFF"])
    except UnidentifiedImageError:
        raise UnsupportedType(f"this is {page}, which is not read") from None
    return stored
