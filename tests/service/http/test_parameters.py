"""What was read for one request must not be taken for another's."""

from __future__ import annotations

from starlette.requests import Request

from service.http.parameters import Parameters


def of(query: str, *headers: tuple[str, str]) -> Parameters:
    raw = [(name.encode(), value.encode()) for name, value in (("host", "a"), *headers, ("accept", "*/*"))]
    return Parameters.of(Request({"type": "http", "query_string": query.encode(), "headers": raw}))


def test_each_request_gets_what_it_asks_for() -> None:
    high, low = ("x-priority", "high"), ("x-priority", "low")
    for _ in range(2):
        assert of("model=a&top_k=3") == Parameters(model="a", top_k=3)
        assert of("model=b&top_k=3") == Parameters(model="b", top_k=3)
        assert of("model=a&top_k=3", low).priority == "low"
        assert of("model=a&top_k=3", high).priority == "high"
        assert of("model=a&top_k=3", high, low).priority == "high"
        assert of("", ("x-request-timeout-ms", "7")).timeout_header_ms == 7
