"""Reads a form (``multipart/form-data``, RFC 7578) while it arrives. Every part that was sent counts, or is refused."""

import logging
import re
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import NamedTuple

from python_multipart import MultipartParser

from service.errors import InvalidParameter, UnsupportedType
from service.inference.picture_cost import Encoded

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings are what the client is told

FIELD = "file"  # the name of every part
_AS_THEY_ARE = ("binary", "8bit", "7bit")  # transfer encodings that change no byte


class File(NamedTuple):
    """An uploaded file."""

    name: str
    data: Encoded


async def read_form(content_type: str, chunks: AsyncIterable[bytes], max_files: int) -> list[File]:
    """Return the files of a form, at most ``max_files``, in the order they were sent.

    Raises InvalidParameter for a form that breaks the format, ends early, has no file, or has a part that nothing
    reads; UnsupportedType for a part that is encoded.
    """
    boundary, parts, seen = _boundary(content_type), _Parts(max_files), b"\r\n"
    try:
        parser = parts.parser(boundary)
        # RFC 2046: a boundary begins no other line. The parser would bear it, at a microsecond for each byte.
        other = re.compile(rb"\r\n--%b(?!\r\n|--|\r?\Z|-?\Z)" % re.escape(boundary))
        async for chunk in chunks:
            seen = seen[-len(boundary) - len("\r\n--\r") :] + chunk
            if other.search(seen):
                raise InvalidParameter("the multipart body is broken: its boundary begins a line of a part")
            parser.write(chunk)
    except ValueError as error:  # the parser's own errors are such, and those of a charset that is none
        raise InvalidParameter(f"the multipart body is broken: {error}") from error
    if not parts.ended:
        raise InvalidParameter("the multipart body ends before its closing boundary")
    if not parts.files:
        raise InvalidParameter(f"the multipart body has no part named {FIELD!r}")
    return [File(name, data) for name, data in parts.files]


def _boundary(content_type: str) -> bytes:
    head = Message()
    head["Content-Type"] = content_type
    if boundary := head.get_boundary():
        return boundary.encode("latin-1", "replace")
    raise InvalidParameter("the Content-Type of the multipart body names no boundary")


@dataclass
class _Parts:
    """What the parser has found so far. It does not know the parser: a cycle would keep the files for a while."""

    max_files: int
    files: list[tuple[str, bytearray]] = field(default_factory=list)
    ended: bool = False
    _head: Message = field(default_factory=Message)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._head_ends,
                "on_part_data": lambda data, start, end: self.files[-1][1].extend(data[start:end]),
                "on_end": self._form_ends,
            },
        )

    def _part_begins(self) -> None:
        if len(self.files) == self.max_files:
            raise InvalidParameter(f"the multipart body has more than the {self.max_files} files allowed")
        self._head = Message()

    def _header_ends(self) -> None:
        self._head[self._name.decode("latin-1")] = self._value.decode("utf-8", "replace")
        self._name, self._value = bytearray(), bytearray()

    def _head_ends(self) -> None:
        name = collapse_rfc2231_value(self._head.get_param("name", "", "Content-Disposition"))
        if name != FIELD:
            raise InvalidParameter(
                f"the form has a part named {name!r}, which nothing reads: name each picture {FIELD!r}, and put "
                "parameters into the query"
            )
        encoding = self._head.get("Content-Transfer-Encoding", "binary")
        if encoding.strip().lower() not in _AS_THEY_ARE:
            raise UnsupportedType(f"a part's Content-Transfer-Encoding is {encoding!r}: send its bytes as they are")
        # Some charsets can say halves of characters, which UTF-8 can't.
        file_name = self._head.get_filename("").encode("utf-8", "replace").decode()
        self.files.append((file_name, bytearray()))

    def _form_ends(self) -> None:
        self.ended = True
