"""One error class for each way a request can fail, and its problem+json form (RFC 9457).

ServiceError
├── BadRequest           400  malformed multipart or query
├── Unauthorized         401  no valid API key
├── Forbidden            403  switched off by a setting
├── UnknownModel         404
├── NotAcceptable        406  no answer of a type the client accepts
├── TooLarge             413  a limit in bytes, pixels, sides, frames or images
├── UnsupportedImage     415  not an accepted image type
├── UnsupportedEncoding  415  compressed in a way that is not undone
├── CorruptImage         422  truncated or broken
├── Overloaded           429  refused by admission control; Retry-After says when to come back
├── ClientGone           499  the client hung up; nobody reads this
├── InternalError        500  generic on purpose: the traceback is in the log
├── NotSupported         501  a part of a protocol that is not served
├── NotReady             503  starting or draining
└── DeadlinePassed       504  names the stage reached
"""

# ruff: noqa: N818 - these are outcomes, and "TooLargeError" would say no more

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from ppool.service import errors

__all__ = [
    "KNOWN",
    "BadRequest",
    "ClientGone",
    "CorruptImage",
    "DeadlinePassed",
    "Forbidden",
    "InternalError",
    "NotAcceptable",
    "NotReady",
    "NotSupported",
    "Overloaded",
    "ServiceError",
    "TooLarge",
    "Unauthorized",
    "UnknownModel",
    "UnsupportedEncoding",
    "UnsupportedImage",
    "problem",
]

PROBLEM_JSON = "application/problem+json"

_MAX_RETRY_SECONDS = 30


class ServiceError(Exception):
    """A request that fails in a known way; the message tells the client what to do.

    Attributes:
        status: HTTP status code.
        title: The kind of problem in a few words, the same every time.
        headers: Sent with the answer.
        members: Further members of the problem document.
    """

    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers: dict[str, str] = {}
        self.members: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers send errors, and subclasses take other arguments than the message."""
        return _restored, (type(self), self.__dict__)

    @classmethod
    def reason(cls) -> str:
        """The class name as a slug, such as ``too-large``: in ``type`` and in the metrics."""
        return re.sub("(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def document(self) -> dict[str, Any]:
        """The problem document; its ``type`` never changes for a class of errors."""
        return {
            "type": f"urn:ppool:problem:{self.reason()}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }


class BadRequest(ServiceError):
    """The multipart form or the query is malformed."""

    status, title = 400, "Malformed request"

    @classmethod
    def of(cls, error: ValidationError) -> Self:
        """The first faults of a JSON body, each with its place, of which at most 80 characters."""
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:80] or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        return cls(f"Correct the request: {'; '.join(faults[:4])}.")


class Unauthorized(ServiceError):
    """No API key, or a wrong one."""

    status, title = 401, "API key required"

    def __init__(self) -> None:
        super().__init__(
            "Send a valid API key in the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
        )
        self.headers["WWW-Authenticate"] = "Bearer"


class Forbidden(ServiceError):
    """A setting forbids it."""

    status, title = 403, "Switched off"


class UnknownModel(ServiceError):
    """No model of that name is loaded."""

    status, title = 404, "Unknown model"


class NotAcceptable(ServiceError):
    """None of the media types that could answer is accepted."""

    status, title = 406, "No acceptable answer"

    def __init__(self, detail: str, available: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.members["available"] = available


class TooLarge(ServiceError):
    """Over a limit in bytes, pixels, sides, frames or images."""

    status, title = 413, "Over a limit"


class UnsupportedImage(ServiceError):
    """The content is of no accepted image type."""

    status, title = 415, "Not an accepted image type"


class UnsupportedEncoding(ServiceError):
    """The body has a ``Content-Encoding`` that is not undone here."""

    status, title = 415, "Not an accepted content encoding"

    def __init__(self, given: str) -> None:
        super().__init__(
            f"Send the body with Content-Encoding gzip, deflate or none, not {given!r}."
        )
        self.headers["Accept-Encoding"] = "gzip, deflate"


class CorruptImage(ServiceError):
    """The image is truncated or broken."""

    status, title = 422, "Truncated or corrupt image"


class Overloaded(ServiceError):
    """Refused to keep the promises made to the requests already accepted."""

    status, title = 429, "Too busy"

    def __init__(self, what: str, retry_after_seconds: int) -> None:
        super().__init__(f"The service is busy ({what}). Retry in {retry_after_seconds} s.")
        self.headers["Retry-After"] = str(retry_after_seconds)
        self.members["retry_after_seconds"] = retry_after_seconds


class ClientGone(ServiceError):
    """The client closed the connection; the status is only seen in logs and metrics."""

    status, title = 499, "Client closed the connection"


class InternalError(ServiceError):
    """Anything unforeseen; the traceback is in the log only."""

    status, title = 500, "Internal error"

    def __init__(self) -> None:
        super().__init__(
            "Something went wrong on our side. Report it with the X-Request-Id of this answer."
        )


class NotSupported(ServiceError):
    """A part of a protocol that is not served here."""

    status, title = 501, "Not supported"


class NotReady(ServiceError):
    """No model is warm yet."""

    status, title = 503, "Not ready"


class DeadlinePassed(ServiceError):
    """The time limit passed while the request was in ``stage``."""

    status, title = 504, "Deadline passed"

    def __init__(self, stage: str) -> None:
        super().__init__(
            f"The time limit passed in the stage {stage!r}. Retry later or send a smaller request."
        )
        self.members["stage"] = stage


def _restored(kind: type[ServiceError], state: dict[str, Any]) -> ServiceError:
    error = kind.__new__(kind, state["detail"])
    error.__dict__.update(state)
    return error


# Those whose own words are told.
_SAME_WORDS: dict[type[errors.Fault], type[ServiceError]] = {
    errors.NotWarm: NotReady,
    errors.UnknownModel: UnknownModel,
    errors.TooDetailed: TooLarge,
    errors.TooLarge: TooLarge,
    errors.UnsupportedImage: UnsupportedImage,
    errors.CorruptImage: CorruptImage,
    errors.NoSuchPage: BadRequest,
    errors.CannotTile: BadRequest,
    errors.CannotTell: BadRequest,
}


def problem(error: Exception) -> ServiceError:
    """What an error of the rooms below is to a client; the one place where that is decided."""
    found: ServiceError = InternalError()
    match error:
        case ServiceError():
            found = error
        case errors.Refused():
            seconds = min(max(math.ceil(error.retry_seconds), 1), _MAX_RETRY_SECONDS)
            found = Overloaded(error.reason, seconds)
        case errors.TooLate():
            found = DeadlinePassed("queue")
        case errors.Replaced():
            found = NotReady("The model was replaced meanwhile. Send the image again.")
        case errors.DeviceFull():
            found = Overloaded("device memory", 1)
        case errors.Fault() if kind := _SAME_WORDS.get(type(error)):
            found = kind(str(error))
    return found


# The base classes of what :func:`problem` knows.
KNOWN = (ServiceError, errors.Fault)
