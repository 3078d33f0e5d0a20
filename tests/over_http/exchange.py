"""Requests of the tests, and checks that hold for any answer."""

from __future__ import annotations

import io
from typing import Any

import httpx2
from PIL import Image


def png(width: int = 320, height: int = 240) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(file, "PNG")
    return file.getvalue()


def classify(client: httpx2.Client, data: bytes, **parameters: Any) -> httpx2.Response:
    return client.post(
        "/classify",
        params={"model": "xception"} | parameters,
        content=data,
        headers={"Content-Type": "image/jpeg"},
    )


def label_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label


def assert_problem(answer: httpx2.Response, status: int, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status, problem
    assert detail in problem["detail"], problem
    assert "Traceback" not in answer.text
    assert "total;dur=" in answer.headers["server-timing"]
