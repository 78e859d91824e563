"""``multipart/form-data`` (RFC 7578): photos and options, as all kinds of clients write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import collapse_rfc2231_value

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from ppool.service.http.encodings import TRANSFER_ENCODINGS, Plain
from ppool.service.http.errors import BadRequest, TooLarge

__all__ = ["PART", "Form", "FormReader", "Upload"]

PART = "image"
# `image[]` and `image[0]` are how axios and PHP call the parts of a list.
_IMAGE = re.compile(rf"{PART}(\[\d*\])?")

# Beside the images: more than there are options.
_MAX_OPTIONS = 32
_MAX_HEADERS, _MAX_HEADER_BYTES = 16, 4096
_MAX_OPTION_BYTES = 4096
# Of a name that is told back.
_SHOWN = 80


@dataclass(frozen=True)
class Upload:
    """One photo file as received; ``name`` is the client's file name, or ``image``."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Form:
    """What a request's body held; ``options`` by name, as in a query."""

    uploads: list[Upload] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)


class FormReader:
    """Reads a form as it comes, in memory: parts are bounded, and no file is written.

    Args:
        content_type: The header of that name.
        max_images: How many to take.
    """

    def __init__(self, content_type: str, max_images: int) -> None:
        self.form = Form()
        self._max_images = max_images
        self._name, self._filename, self._is_image = "", "", False
        self._data: list[bytes] = []
        self._decoder = Plain()
        _, options = parse_options_header(content_type[:_MAX_HEADER_BYTES])
        try:
            self._parser = PushMultipartParser(
                options.get("boundary", ""),
                max_header_size=_MAX_HEADER_BYTES,
                max_header_count=_MAX_HEADERS,
                max_segment_count=max_images + 1 + _MAX_OPTIONS,
                header_charset="latin1",
            )
        except MultipartError as error:
            raise _broken() from error

    def feed(self, data: bytes) -> None:
        """Go on with ``data``.

        Raises:
            BadRequest: if that is no form.
            TooLarge: if there are too many parts.
        """
        try:
            for event in self._parser.parse(data) if data else ():
                match event:
                    case MultipartSegment():
                        self._begin(event)
                    case None:
                        self._end()
                    case _:
                        self._go_on(event)
        except ParserLimitReached as error:
            raise TooLarge(
                f"Send at most {self._max_images} images and {_MAX_OPTIONS} options, each with "
                f"headers of at most {_MAX_HEADER_BYTES} bytes."
            ) from error
        except MultipartError as error:
            raise _broken() from error
        except ValueError as error:
            raise BadRequest(f"{self._name}: {error}") from error

    def close(self) -> Form:
        """The whole form.

        Raises:
            BadRequest: if it is cut off.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise BadRequest("The multipart form ends too early; send it again.") from error
        return self.form

    def _begin(self, segment: MultipartSegment) -> None:
        self._name, filename = _names(segment)
        self._is_image = bool(_IMAGE.fullmatch(self._name))
        if not self._is_image and filename is not None:
            raise BadRequest(
                f"Send each image as a multipart file part called {PART!r}, "
                f"not {self._name[:_SHOWN]!r}."
            )
        if self._is_image and len(self.form.uploads) == self._max_images:
            raise TooLarge(f"Send at most {self._max_images} images in a request.")
        self._filename = filename or PART
        if segment.header("Content-Encoding", "identity").lower() != "identity":
            raise BadRequest("Compress the whole body and say so in its head, not a part of it.")
        encoding = segment.header("Content-Transfer-Encoding", "").strip().lower() or "binary"
        if encoding not in TRANSFER_ENCODINGS:
            raise BadRequest(
                f"Content-Transfer-Encoding: expected {', '.join(TRANSFER_ENCODINGS)}, "
                f"got {encoding[:_SHOWN]!r}."
            )
        self._decoder, self._data = TRANSFER_ENCODINGS[encoding](), []

    def _go_on(self, data: bytes) -> None:
        self._data.append(self._decoder.feed(data))
        if not self._is_image and sum(map(len, self._data)) > _MAX_OPTION_BYTES:
            raise BadRequest(f"{self._name[:_SHOWN]}: expected an option, got something long.")

    def _end(self) -> None:
        data = b"".join([*self._data, self._decoder.close()])
        if self._is_image:
            self.form.uploads.append(Upload(self._filename, data))
        elif self._name != "_charset_":  # which browsers fill in (RFC 7578, section 4.6)
            self.form.options.append((self._name, data.decode("utf-8", "replace")))


def _broken() -> BadRequest:
    return BadRequest("The multipart form is broken; let a client library write it.")


def _names(segment: MultipartSegment) -> tuple[str, str | None]:
    """Name and file name of a part."""
    header = segment.header("Content-Disposition", "")
    name, filename = segment.name, segment.filename
    if "*" in header or "=?" in header:
        # RFC 7578 wants plain UTF-8. .NET writes a name that is not ASCII as RFC 2047 says, and
        # beside it, as others alone, as RFC 2231 does.
        message = Message()
        message["Content-Disposition"] = header
        found: dict[str, str] = {}
        for key, value in message.get_params([], "Content-Disposition"):
            if key not in found or isinstance(value, tuple):
                found[key.lower()] = _words(collapse_rfc2231_value(value))
        name, filename = found.get("name"), found.get("filename")
    return _text(name or ""), filename and _text(filename)


def _words(text: str) -> str:
    """Without the encoding of RFC 2047."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, UnicodeError):
        return text


def _text(latin1: str) -> str:
    """What was read as Latin-1 and is UTF-8 if it can be."""
    try:
        return latin1.encode("latin-1").decode()
    except UnicodeError:
        return latin1
