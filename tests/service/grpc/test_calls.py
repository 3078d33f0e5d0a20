"""An error that nobody foresaw."""

from __future__ import annotations

import logging

import pytest

from service.errors import InferenceFailed, ServiceError, Unavailable
from service.grpc.calls import _told


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyError("a secret"), InferenceFailed), (MemoryError(), Unavailable), (Unavailable("loading"), Unavailable)],
)
def test_the_log_alone_has_the_traceback(
    error: Exception, told: type[ServiceError], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(told) as caught, caplog.at_level(logging.ERROR), _told():
        raise error
    assert "secret" not in str(caught.value)
    assert ("Traceback" in caplog.text) is isinstance(error, KeyError)
