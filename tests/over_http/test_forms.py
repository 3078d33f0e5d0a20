"""Every part of a form is answered, in its order, or the form is refused: no picture vanishes behind a 200."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest

from tests.over_http.exchange import assert_problem, png

FILE = 'name="file"; filename="a.jpg"'


def part(disposition: str, data: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *headers])
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def send(client: httpx2.Client, *parts: bytes, end: bytes = b"--b--\r\n") -> httpx2.Response:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post("/classify?model=xception&top_k=1", content=b"".join(parts) + end, headers=kind)


def labels(answer: httpx2.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [result["predictions"][0]["label"] for result in body.get("results", [body])]


@pytest.mark.parametrize(
    "disposition",
    [
        "name=\"file\"; filename*=UTF-8''a.jpg",
        'name="file"',
        "name=file",
        "name*=UTF-8''file; filename=a.jpg",
        'filename="a;name=x.jpg"; name="file"',
        'name="file"; filename=""',
    ],
)
def test_a_file_counts_however_it_is_named(
    client: httpx2.Client, labelled: list[tuple[bytes, str]], disposition: str
) -> None:
    (first, one), (second, two) = labelled[0], next(photo for photo in labelled if photo[1] != labelled[0][1])
    assert labels(send(client, part(disposition, first))) == [one]
    assert labels(send(client, part(FILE, second), part(disposition, first))) == [two, one]
    assert labels(send(client, part(disposition, first), part(disposition, second))) == [one, two]


def test_file_names_are_given_back(client: httpx2.Client) -> None:
    named = ["filename*=UTF-8''caf%C3%A9.jpg", 'filename="café.jpg"', r'filename="a\"b.jpg"', 'filename="a;b"', ""]
    answer = send(client, *(part(f'name="file"; {name}', png()) for name in named))
    assert [result["file"] for result in answer.json()["results"]] == ["café.jpg", "café.jpg", 'a"b.jpg', "a;b", ""]


@pytest.mark.parametrize("field", ["model", "image", "File", "file[]", ""])
def test_a_part_that_nothing_reads_is_named(client: httpx2.Client, field: str) -> None:
    for disposition in (f'name="{field}"', f'name="{field}"; filename="a.png"'):
        assert_problem(send(client, part(FILE, png()), part(disposition, b"xception")), 422, repr(field))


def test_a_part_without_a_name_is_refused(client: httpx2.Client) -> None:
    assert_problem(send(client, part(FILE, png()), b"--b\r\n\r\n" + png() + b"\r\n"), 422, "named ''")


@pytest.mark.parametrize("end", [b"", b"--b", b"--b-", b"--b\r\n"])
def test_a_form_without_its_end_is_refused(client: httpx2.Client, end: bytes) -> None:
    assert_problem(send(client, part(FILE, png()), part(FILE, png()), end=end), 422, "closing boundary")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"before\r\n" + part(FILE, b"x"), "broken"),
        (part(FILE, b"x", "X-Folded: one,", " two"), "broken"),
        (part(FILE, b"x").replace(b"\r\n", b"\n"), "broken"),
        (b"", "no part named 'file'"),
        (33 * part(FILE, b"x"), "32 files"),
        (part(FILE, b"x\r\n--begun"), "boundary begins a line"),
        (part(FILE, b"x\r\n--b \r\n"), "boundary begins a line"),
    ],
)
def test_a_form_that_is_not_understood_is_refused(client: httpx2.Client, body: bytes, detail: str) -> None:
    assert_problem(send(client, body), 422, detail)


def test_an_encoded_part_is_refused(client: httpx2.Client) -> None:
    encoded = part(FILE, base64.b64encode(png()), "Content-Transfer-Encoding: base64")
    assert_problem(send(client, part(FILE, png()), encoded), 415, "base64")
    assert len(labels(send(client, part(FILE, png(), "content-transfer-encoding: Binary")))) == 1


def test_an_empty_part_fails_alone(client: httpx2.Client) -> None:
    assert_problem(send(client, part(FILE, b"")), 400, "not an image")
    empty, good = send(client, part(FILE, b""), part(FILE, png())).json()["results"]
    assert empty["error"]["status"] == 400
    assert len(good["predictions"]) == 1


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; a=b"])
def test_a_form_needs_a_boundary(client: httpx2.Client, kind: str) -> None:
    answer = client.post("/classify?model=xception", content=part(FILE, png()), headers={"Content-Type": kind})
    assert_problem(answer, 422, "names no boundary")


def test_a_file_name_s_charset_that_is_none(client: httpx2.Client) -> None:
    assert_problem(send(client, part("name=file; filename*=undefined''%e9", b"x")), 422, "multipart")


def test_a_file_name_that_utf_8_can_not_say(client: httpx2.Client) -> None:
    answer = send(client, *2 * [part("name=file; filename*=utf-7''a%2B2AE-b", b"x")])
    assert [result["file"] for result in answer.json()["results"]] == ["a?b", "a?b"]
