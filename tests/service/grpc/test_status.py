from __future__ import annotations

import grpc
import pytest

from service import errors
from service.grpc.status import code_of, metadata_of, text_of

OF_BODIES = {errors.BodyTimeout, errors.BodyTooLarge, errors.UnsupportedEncoding}  # which a message has not
Code = grpc.StatusCode


def kinds(base: type[errors.ServiceError]) -> set[type[errors.ServiceError]]:
    return {base}.union(*map(kinds, base.__subclasses__()))


def test_every_error_that_a_call_can_meet_has_a_code() -> None:
    met = kinds(errors.ServiceError) - kinds(errors.StartupError) - OF_BODIES - {errors.ServiceError}
    overloads = kinds(errors.Overloaded)
    assert len(met) >= 15
    for kind in met:
        error = kind("", 0.0) if kind in overloads else kind("")
        assert isinstance(code_of(error), Code)
        assert (code_of(error) is Code.UNAVAILABLE) is issubclass(kind, errors.Unavailable)
        assert (code_of(error) is Code.RESOURCE_EXHAUSTED) is (kind in overloads)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.0101, "11"), (2.0, "2000")])
def test_a_refusal_says_when_to_come_back(seconds: float, told: str) -> None:
    assert metadata_of(errors.QueueFull("", seconds)) == (("retry-after-ms", told),)
    assert metadata_of(errors.ModelNotFound("")) == ()


def test_what_a_client_is_told_is_short_and_names_no_folder() -> None:
    assert text_of(errors.Unavailable("can't read /srv/models/xception/1/labels.txt")) == "can't read labels.txt"
    assert len(text_of(errors.ModelNotFound("x" * 10_000))) == 500
