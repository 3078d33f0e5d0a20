"""What no client library sends."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import httpx2
import pytest
from PIL import Image

URL = "/v2/models/xception/infer"
HEAD = "Inference-Header-Content-Length"


def one(**changes: Any) -> dict[str, Any]:
    return {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 14}} | changes


def sent(client: httpx2.Client, head: Any, blob: bytes = b"", **headers: str) -> httpx2.Response:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    given = {HEAD: str(len(text))} if blob else {}
    return client.post(URL, content=text + blob, headers=given | headers)


FRAMED = b"\x0a\0\0\0no picture"


@pytest.mark.parametrize(
    ("head", "blob", "words"),
    [
        (b"[]", b"", "the JSON"),
        (b"null", b"", "the JSON"),
        (b"[" * 100_000, b"", "recursion"),
        (b'{"inputs": ' + b"9" * 1_000_000 + b"}", b"", "the JSON"),
        (b'{"id": "\xff"}', b"", "the JSON"),
        (b'{"id": "\\ud800", "inputs": []}', b"", "the JSON"),
        ({"inputs": []}, b"", "inputs"),
        ({"inputs": [one(name="x", data=[1], parameters={})]}, b"", "unexpected inference inputs"),
        ({"inputs": [one(), one()]}, FRAMED * 2, "unexpected inference inputs"),
        ({"id": 7, "inputs": [one()]}, FRAMED, "id"),
        ({"inputs": [one(shape=[10**30])]}, FRAMED, "a request of"),
        ({"inputs": [one(shape=[0])]}, FRAMED, "a request of 0 images"),
        ({"inputs": [one(shape=[-1])]}, FRAMED, "a request of -1 images"),
        ({"inputs": [one(shape=[2])]}, FRAMED, "fewer elements than its shape says, 2"),
        ({"inputs": [one(shape=[True])]}, FRAMED, "shape"),
        ({"inputs": [one(datatype="bytes")]}, FRAMED, "must be UINT8"),
        ({"inputs": [one(data=["text"], parameters={})]}, b"", "JSON holds no picture's bytes"),
        ({"inputs": [one(parameters={})]}, b"", "either data or"),
        ({"inputs": [one(data=[1])]}, FRAMED, "either data or"),
        ({"inputs": [one(parameters={"binary_data_size": 15})]}, FRAMED, "14 bytes are left"),
        ({"inputs": [one(parameters={"binary_data_size": -1})]}, FRAMED, "14 bytes are left"),
        ({"inputs": [one(parameters={"binary_data_size": 13})]}, FRAMED, "1 bytes are left after"),
        ({"inputs": [one(parameters={"binary_data_size": "14"})]}, FRAMED, "14 bytes are left"),
        ({"inputs": [one(parameters={"binary_data_size": 14, "shared_memory_region": "r"})]}, FRAMED, "shared memory"),
        ({"inputs": [one()]}, b"\xff\xd8\xff\xe0no picture", "this is a bare JPEG"),
        ({"inputs": [one()]}, b"\x0b\0\0\0no picture", "a BYTES element of 11 bytes, and 10 are left"),
        ({"inputs": [one()]}, FRAMED, "image"),
        ({"inputs": [one()], "outputs": [{"name": "logits"}]}, FRAMED, "unexpected inference outputs"),
        (
            {"inputs": [one()], "outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]},
            FRAMED,
            "classification must be a whole number",
        ),
        ({"inputs": [one()], "parameters": {"timeout": -1}}, FRAMED, "timeout must be a whole number"),
        ({"inputs": [one()], "parameters": {"priority": "high"}}, FRAMED, "priority must be a whole number"),
    ],
)
def test_a_wrong_request_is_400_and_says_why(client: httpx2.Client, head: Any, blob: bytes, words: str) -> None:
    answer = sent(client, head, blob)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert words.lower() in answer.json()["error"].lower()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2, 3], "is 3 values"),
        ([0.5] * 268_203, "float"),
        (["1"] * 268_203, "str"),
        ([True] * 268_203, "bool"),
        ([300] * 268_203, "pixels are 0 to 255"),
        ([-1] * 268_203, "pixels are 0 to 255"),
        ([10**30] * 20_000 + [0] * 248_203, "pixels are 0 to 255"),
        ([[1, 2], [3]], "whole numbers"),
    ],
    ids=["few", "fractions", "texts", "truths", "large", "negative", "huge", "ragged"],
)
def test_pixels_in_json_are_whole_numbers_of_a_byte(client: httpx2.Client, data: Any, words: str) -> None:
    answer = sent(client, {"inputs": [one(datatype="UINT8", shape=[1, 299, 299, 3], data=data, parameters={})]})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_small_body_makes_no_large_work(client: httpx2.Client) -> None:
    texts = {
        "inputs": [one(datatype="UINT8", shape=[1, 299, 299, 3], data=["x" * 100_000] + [""] * 30_000, parameters={})]
    }
    assert "str" in sent(client, texts).json()["error"]
    empty = {"inputs": [one(parameters={"binary_data_size": 4_000_000})]}
    assert "more elements than its shape says, 1" in sent(client, empty, bytes(4_000_000)).json()["error"]
    assert "send images as binary tensors" in sent(client, b"[" + b"[]," * 900_000 + b"0]").json()["error"]


def test_more_unusual_pictures_than_are_ever_admitted_are_no_overload(client: httpx2.Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "AVIF")
    framed = struct.pack("<I", file.tell()) + file.getvalue()
    head = {"inputs": [one(shape=[5], parameters={"binary_data_size": 5 * len(framed)})]}
    answer = sent(client, head, framed * 5)
    assert (answer.status_code, "at most 4 together" in answer.json()["error"]) == (400, True)


def test_a_picture_of_the_size_of_pixels_is_a_picture(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    photo = min((data for data, _ in labelled), key=len)
    assert len(photo) < 268_203
    answer = client.post(URL, content=photo.ljust(268_203, b"\0"), headers={HEAD: "0"})
    alone = client.post(URL, content=photo, headers={HEAD: "0"})
    assert answer.content[-24:] == alone.content[-24:]
    assert "decode" in answer.headers["server-timing"]


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "999999999999", ""])
def test_a_wrong_length_of_the_head(client: httpx2.Client, length: str) -> None:
    answer = client.post(URL, content=b"{}", headers={HEAD: length})
    assert (answer.status_code, HEAD in answer.json()["error"]) == (400, True)


def test_the_body_may_be_a_picture_or_pixels_alone(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    for content in (labelled[0][0], bytes(268_203)):
        answer = client.post(URL, content=content, headers={HEAD: "0"})
        assert answer.status_code == 200
        head = json.loads(answer.content[: int(answer.headers[HEAD])])
        assert head["outputs"][0]["shape"] == [1, 6]
        assert len(answer.content) == int(answer.headers[HEAD]) + 24


def test_zeros_that_deflate_to_little_are_bounded(client: httpx2.Client) -> None:
    packed = zlib.compress(bytes(120_000_000), 9)
    answer = client.post(URL, content=packed, headers={"Content-Encoding": "deflate", HEAD: "10"})
    assert answer.status_code == 413
    answer = client.post(URL, content=packed[:1000], headers={"Content-Encoding": "deflate"})
    assert answer.status_code == 400
    answer = client.post(URL, content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/xception/versions/2", 404),
        ("GET", "/v2/models/xception/versions/x", 400),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/xception/infer", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/index", 400),
    ],
)
def test_errors_have_the_protocol_s_form(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, content=b"{" if method == "POST" else None)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_every_path_of_a_model_has_one_of_a_version(client: httpx2.Client) -> None:
    for path in ("", "/config", "/stats", "/ready"):
        answers = [client.get(f"/v2/models/xception{version}{path}") for version in ("", "/versions/1")]
        assert [answer.status_code for answer in answers] == [200, 200]
    assert client.get("/v2/").json() == client.get("/v2").json()
    assert client.get("/v2/models").json() == {"models": ["inception_v4", "xception"]}
    assert client.post("/v2/repository/index", content=b"").json() == client.post("/v2/repository/index").json()
