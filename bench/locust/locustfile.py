"""Locust's users. They send labelled photos in every form that the API accepts, and check the answers.

Run it in the root of the repository: ``locust -f bench/locust/locustfile.py --host http://127.0.0.1:8000``. The run
needs only Locust, this folder and a folder of photos (``python -m export.photos FOLDER``), but not PyTorch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

from locust import FastHttpUser, between, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from bench.locust.thresholds import REFUSED, WRONG_LABEL


class Photo(NamedTuple):
    """A JPEG file, and the label that the answer must name first."""

    data: bytes
    label: str


class Visitor(FastHttpUser):
    """A user who waits for each answer and a moment longer; after a refusal, for at least the time of Retry-After."""

    photos: ClassVar[list[Photo]] = []
    model: ClassVar[str] = ""
    think_time = between(0.1, 1.0)
    retry_after = 0.0  # seconds, as the last refusal said

    def wait_time(self) -> float:
        """Return the seconds until the next request."""
        wait, self.retry_after = max(self.think_time(), self.retry_after), 0.0
        return wait

    @tag("raw")
    @task(12)
    def raw_photo(self) -> None:
        """Send a photo as the request's body."""
        photo = _draw(self.photos)
        self._classify("raw", [photo], data=photo.data, headers=_JPEG)

    @tag("multipart")
    @task(4)
    def form(self) -> None:
        """Send a photo in a form, as browsers do."""
        self._send_form("multipart", [_draw(self.photos)])

    @tag("multipart")
    @task(2)
    def several_files(self) -> None:
        """Send two to four photos in one request."""
        self._send_form("several files", [_draw(self.photos) for _ in range(_draw((2, 3, 4)))])

    @tag("mistake")
    @task(1)
    def mistake(self) -> None:
        """Send a request that the server must reject."""
        photo = _draw(self.photos).data
        mistakes: dict[str, dict[str, Any]] = {
            "truncated": {"expected": 400, "data": photo[: len(photo) // 2], "headers": _JPEG},
            "unknown model": {"expected": 404, "data": photo, "headers": _JPEG, "query": {"model": "none"}},
            "text": {"expected": 415, "data": b"a cup", "headers": {"Content-Type": "text/plain"}},
            "top_k": {"expected": 422, "data": photo, "headers": _JPEG, "query": {"top_k": 0}},
        }
        kind = _draw(list(mistakes))
        self._classify(f"mistake: {kind}", **mistakes[kind])

    def _send_form(self, name: str, photos: Sequence[Photo]) -> None:
        self._classify(name, photos, files=[("file", (f"{p.label}.jpg", p.data, "image/jpeg")) for p in photos])

    def _classify(
        self,
        name: str,
        photos: Sequence[Photo] = (),
        expected: int = 200,
        query: dict[str, object] | None = None,
        **request: Any,
    ) -> None:
        """Send a request and judge the answer: its status is ``expected``, and it names each photo's label first."""
        parameters = urlencode({"model": self.model, "top_k": 1} | (query or {}))
        with self.client.post(f"/classify?{parameters}", name=name, catch_response=True, **request) as answer:
            if answer.status_code == 0:
                return  # no answer: Locust counts the connection's error itself
            if answer.status_code == 429:
                self.retry_after = float((answer.headers or {}).get("Retry-After", 0))
                answer.request_meta["name"] = REFUSED
                answer.success()
            elif answer.status_code != expected:
                answer.failure(f"{answer.status_code} instead of {expected}")
            elif wrong := _wrong(answer.content, photos):
                answer.failure(wrong)
            else:
                answer.success()


_JPEG = {"Content-Type": "image/jpeg"}
_draw = random.choice


def _wrong(body: bytes, photos: Sequence[Photo]) -> str | None:
    """Say what is wrong with an answer. None if nothing is wrong."""
    try:
        answer = json.loads(body)
        results = answer["results"] if len(photos) > 1 else [answer] * len(photos)
        for result, photo in zip(results, photos, strict=True):
            if "error" in result:
                if result["error"]["status"] != 429:  # the server refused this file and served the others
                    return f"{result['error']['status']} for one of several files"
            elif (label := result["predictions"][0]["label"]) != photo.label:
                return f"{WRONG_LABEL}: {label} instead of {photo.label}"
    except (LookupError, TypeError, ValueError):
        return "garbled answer"
    return None


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--photos", default=".cache/photos", metavar="FOLDER", env_var="LOCUST_PHOTOS", include_in_web_ui=False,
        help="folder of the photos to send, <label>/<name>.jpg (default: .cache/photos)",
    )  # fmt: skip
    parser.add_argument(
        "--model", default="xception", env_var="LOCUST_MODEL", include_in_web_ui=False,
        help="name of the model, which must know the photos' labels (default: xception)",
    )  # fmt: skip


@events.init.add_listener
def _read_photos(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    Visitor.model = options.model
    Visitor.photos = [Photo(path.read_bytes(), path.parent.name) for path in Path(options.photos).glob("*/*.jpg")]
    if not Visitor.photos:
        raise SystemExit(f"no photos in {options.photos}; write some: python -m export.photos {options.photos}")
