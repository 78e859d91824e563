"""The photos of a request: a raw body or multipart parts, counted while they stream in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ppool.service.http.errors import BadRequest, ClientGone, TooLarge
from ppool.service.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["Upload", "read_body", "read_uploads"]

PART = "image"


@dataclass(frozen=True)
class Upload:
    """One photo file as received; ``name`` is the client's file name, or ``image``."""

    name: str
    data: bytes


async def read_uploads(
    request: Request, settings: Settings, hold: Callable[[int], None]
) -> list[Upload]:
    """Read the whole body; ``hold`` is called with the bytes of every part that came.

    Raises:
        TooLarge: as soon as the announced or the received bytes pass the limit.
        BadRequest: if the multipart form is broken or has no part called ``image``.
        ClientGone: if the connection closes before the end.
    """
    try:
        stream = _counted(request, settings.max_body_bytes, hold)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            return await _parts(request, stream, settings.max_images)
        data = b"".join([chunk async for chunk in stream])
    except ClientDisconnect as error:
        raise ClientGone("The connection closed before the whole body had come.") from error
    if not data:
        raise BadRequest(f"Send an image as the body, or as a multipart part called {PART!r}.")
    return [Upload(PART, data)]


async def read_body(request: Request, settings: Settings, hold: Callable[[int], None]) -> bytes:
    """The whole body as it is.

    Raises:
        TooLarge, ClientGone: as :func:`read_uploads`.
    """
    try:
        stream = _counted(request, settings.max_body_bytes, hold)
        return b"".join([chunk async for chunk in stream])
    except ClientDisconnect as error:
        raise ClientGone("The connection closed before the whole body had come.") from error


async def _counted(
    request: Request, limit: int, hold: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    announced = request.headers.get("content-length", "0")
    received = int(announced) if announced.isascii() and announced.isdigit() else 0
    too_large = TooLarge(f"Send at most {limit} bytes in a request.")
    # The rest of the body is unread, so the connection is of no further use.
    too_large.headers["Connection"] = "close"
    if received > limit:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large
        hold(len(chunk))
        yield chunk


async def _parts(
    request: Request, stream: AsyncGenerator[bytes, None], max_images: int
) -> list[Upload]:
    _, options = parse_options_header(request.headers["content-type"])
    form = _Form(max_images)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), form.callbacks())
        async for chunk in stream:
            parser.write(chunk)
    except FormParserError as error:
        raise BadRequest("The multipart form is broken; let a client library write it.") from error
    if not form.complete:
        raise BadRequest("The multipart form ends too early; send it again.")
    if not form.uploads:
        raise BadRequest(f"Send each image as a multipart file part called {PART!r}.")
    return form.uploads


class _Form:
    """Collects the parts called ``image`` in memory: they are bounded, and no file is written."""

    def __init__(self, max_images: int) -> None:
        self.uploads: list[Upload] = []
        self.complete = False
        self._max_images = max_images
        self._header, self._value = b"", b""
        self._options: dict[bytes, bytes] = {}
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._options, self._data = {}, bytearray()

    def _header_begin(self) -> None:
        self._header, self._value = b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._options = parse_options_header(self._value)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _part_end(self) -> None:
        if self._options.get(b"name") != PART.encode():
            return
        if len(self.uploads) == self._max_images:
            raise TooLarge(f"Send at most {self._max_images} images in a request.")
        name = self._options.get(b"filename", b"").decode("utf-8", "replace")
        self.uploads.append(Upload(name or PART, bytes(self._data)))

    def _end(self) -> None:
        self.complete = True
