"""The one map from the service's errors to gRPC's codes.

A server with too much work is RESOURCE_EXHAUSTED and never UNAVAILABLE: KServe's client would ask again at once.
"""

import math

from grpc import StatusCode

from service import errors

_MOST_TEXT = 500  # characters: clients take 8 KB of metadata, in which a character may need 12 bytes

_CODES: dict[type[errors.ServiceError], StatusCode] = {
    errors.InvalidImage: StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: StatusCode.INVALID_ARGUMENT,
    errors.InvalidParameter: StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedType: StatusCode.INVALID_ARGUMENT,
    errors.Unauthorized: StatusCode.UNAUTHENTICATED,
    errors.Forbidden: StatusCode.PERMISSION_DENIED,
    errors.ModelNotFound: StatusCode.NOT_FOUND,
    errors.Unsupported: StatusCode.UNIMPLEMENTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.InferenceFailed: StatusCode.INTERNAL,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: errors.ServiceError) -> StatusCode:
    """Return the code that says what ``error`` says. The service has errors that no call can meet: of HTTP bodies."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def text_of(error: errors.ServiceError) -> str:
    """Return what a client is told."""
    return errors.without_folders(str(error))[:_MOST_TEXT]


def metadata_of(error: errors.ServiceError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata that ``error`` asks for."""
    if isinstance(error, errors.Overloaded):
        return (("retry-after-ms", str(max(1, math.ceil(error.retry_after * 1e3)))),)
    return ()
