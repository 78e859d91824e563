"""The body of a request as it streams in: counted, decompressed, and never more than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.requests import ClientDisconnect, Request

from ppool.service.http.encodings import Inflater
from ppool.service.http.errors import BadRequest, ClientGone, TooLarge, UnsupportedEncoding

__all__ = ["read_body", "stream_body"]

_CODINGS = {"gzip", "x-gzip", "deflate"}

# Decompressed until others get their turn.
_TURN_BYTES = 2**20


async def read_body(request: Request, limit: int, hold: Callable[[int], None]) -> bytes:
    """The whole body.

    Raises:
        ServiceError: as :func:`stream_body`.
    """
    return b"".join([chunk async for chunk in stream_body(request, limit, hold)])


async def stream_body(
    request: Request, limit: int, hold: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    """The body in pieces, without its ``Content-Encoding``.

    Args:
        request: Whose body was not yet read.
        limit: Most bytes, as sent and as decompressed.
        hold: Called with the number of bytes of each piece.

    Raises:
        TooLarge: as soon as the announced or the received bytes pass the limit.
        BadRequest: if the body is not what ``Content-Encoding`` says.
        UnsupportedEncoding: if it is compressed in another way than ``gzip`` and ``deflate``.
        ClientGone: if the connection closes before the end.
    """
    too_large = TooLarge(f"Send at most {limit} bytes in a request.")
    # The rest of the body is unread, so the connection is of no further use.
    too_large.headers["Connection"] = "close"
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise too_large
    inflater = _inflater(request.headers.getlist("content-encoding"))
    received = came = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            for piece in inflater.pieces(chunk) if inflater else (chunk,):
                before, came = came, came + len(piece)
                if max(received, came) > limit:
                    raise too_large
                hold(len(piece))
                yield piece
                if inflater and before // _TURN_BYTES < came // _TURN_BYTES:
                    await asyncio.sleep(0)
        if inflater:
            inflater.close()
    except ClientDisconnect as error:
        raise ClientGone("The connection closed before the whole body had come.") from error
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _inflater(headers: list[str]) -> Inflater | None:
    codings = [coding.strip().lower() for line in headers for coding in line.split(",")]
    match [coding for coding in codings if coding not in {"", "identity"}]:
        case []:
            return None
        case [coding] if coding in _CODINGS:
            return Inflater()
        case given:
            raise UnsupportedEncoding(", ".join(given)[:80])
