"""What can go wrong, in the domain's terms. Each door has its own map from these to what its protocol says."""

import re

_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/:'\"]+/)+")


class ServiceError(Exception):
    """Base of every error whose message is meant for the client or the operator."""


class StartupError(ServiceError):
    """The server can't start as it is configured: the message names the cause and the cure."""


class InvalidManifest(StartupError):
    """A model folder breaks the model repository's contract, or a file in it is not the one described."""


class DeviceUnavailable(StartupError):
    """The requested device can't run the model."""


class InvalidImage(ServiceError):
    """The bytes are no image, or a damaged one."""


class ImageTooLarge(ServiceError):
    """The picture has more pixels than allowed; found in its header, before any decoding."""


class BodyTooLarge(ServiceError):
    """The request's body has more bytes than allowed."""


class UnsupportedType(ServiceError):
    """The request's content type, or the image's format, is not one the service takes."""


class UnsupportedEncoding(ServiceError):
    """The request's body is encoded in a way that the service does not undo."""


class InvalidParameter(ServiceError):
    """A parameter is out of range for the model, or a part of the request is missing."""


class Unsupported(ServiceError):
    """The protocol has this, and the service has not."""


class Unauthorized(ServiceError):
    """The request has no key, or an unknown one."""


class Forbidden(ServiceError):
    """The key does not allow this."""


class ModelNotFound(ServiceError):
    """No model, or no such version of it, has that name."""


class Unavailable(ServiceError):
    """The model is loading or failed; another replica may answer."""


class Draining(Unavailable):
    """The server is shutting down: this connection is of no more use."""


class BodyTimeout(ServiceError):
    """The body arrived too slowly."""


class Overloaded(ServiceError):
    """Refused on arrival. ``retry_after`` is when to come back, in seconds from now."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Overloaded):
    """The queue holds all it may."""


class DeadlineUnmeetable(Overloaded):
    """The queue is so long that the answer would come after the deadline."""


class RateExceeded(Overloaded):
    """The key was used more often than it may be."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before the answer was there."""


class InferenceFailed(ServiceError):
    """The session raised, or gave another number of answers than it was asked."""


class ClientGone(Exception):
    """The client closed its connection. Nobody reads an answer, so this is no ServiceError."""


def without_folders(text: str) -> str:
    """Return ``text`` with the names of files in place of their absolute paths, which are no client's business."""
    return _FOLDERS.sub("", text)
