"""Forms that Hypothesis makes: whole ones are read as they were sent, and any other bytes are refused by name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter, UnsupportedType
from service.http.form import File, read_form

pytestmark = [pytest.mark.anyio, pytest.mark.fuzz]
KIND = "multipart/form-data; boundary=b"
MOST = 4  # files in a form

# What a parser of forms may stumble on.
NEWLINES = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\r\n--b", b"\r\n--b\r\n", b"\r\n--b--"]
WORDS = rb"""- -- --b : ; " * Content-Disposition:form-data ;name="file" ;name= ;filename*= utf-7'' undefined''%ff
    ;filename="a" Content-Transfer-Encoding: base64""".split()
tokens = st.sampled_from([*NEWLINES, *WORDS, b" ", b"x" * 5000])
junk = st.lists(tokens | st.binary(max_size=8), max_size=40).map(b"".join)
contents = junk.filter(lambda data: b"\r\n--b" not in b"\r\n" + data + b"\r\n")  # all that a part may hold
names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='\\"%'), max_size=8)


async def chunks(body: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    """Yield a body in pieces of some sizes, and then its rest."""
    for size in sizes:
        yield body[:size]
        body = body[size:]
    yield body


def part(name: str, data: bytes | bytearray) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"


@given(st.lists(st.builds(File, names, contents), min_size=1, max_size=MOST), st.lists(st.integers(0, 50)))
async def test_files_are_read_as_they_were_sent(sent: list[File], sizes: list[int]) -> None:
    body = b"".join(part(*file) for file in sent) + b"--b--"
    assert await read_form(KIND, chunks(body, sizes), MOST) == sent


@given(st.lists(st.builds(File, names, contents), min_size=1, max_size=MOST), st.integers(min_value=1))
async def test_a_form_cut_anywhere_is_refused(sent: list[File], cut: int) -> None:
    body = b"".join(part(*file) for file in sent) + b"--b--"
    with pytest.raises(InvalidParameter):
        await read_form(KIND, chunks(body[: -1 - cut % len(body)], []), MOST)


pieces = st.lists(st.builds(part, names, contents) | junk | st.just(b"--b--"), max_size=2 * MOST).map(b"".join)
kinds = st.text(st.characters(max_codepoint=255))


@given(pieces, st.lists(st.integers(0, 50)), st.just(KIND) | kinds)
async def test_any_bytes_are_files_or_are_refused(body: bytes, sizes: list[int], kind: str) -> None:
    """Every line that begins a part before the closing one has its file."""
    try:
        files = await read_form(kind, chunks(body, sizes), MOST)
    except (InvalidParameter, UnsupportedType) as error:
        str(error).encode()
    else:
        "".join(file.name for file in files).encode()
        parts, closed, _ = (b"\r\n" + body).partition(b"\r\n--b--")
        assert closed
        assert len(re.findall(rb"\r\n--b[ \t]*(?=\r\n)", parts)) <= len(files) <= MOST
        assert files
