"""What clients wrap bytes in, taken off piece by piece: compression, base64, quoted-printable.

And compression of answers.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterator, Sequence

__all__ = ["CODINGS", "TRANSFER_ENCODINGS", "Base64", "Inflater", "Plain", "deflated"]

# `zlib` then tells gzip from zlib by the first bytes.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# What answers are compressed to, best first, and what is added to the window's size for it.
_WRAPPING = {"gzip": 16, "deflate": 0}
CODINGS = tuple(_WRAPPING)

_STEP_BYTES = 64 * 1024
# A file of `bgzip` has one for every 64 KiB; each costs as much as many bytes.
_MAX_MEMBERS = 1024
_MAX_LINE_BYTES = 64 * 1024


class Inflater:
    """Undoes gzip and deflate, however much a piece would become.

    Every method raises ``ValueError`` with a sentence on what is wrong with the data.
    """

    def __init__(self) -> None:
        self._members = 1
        self._one = zlib.decompressobj(_GZIP_OR_ZLIB)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` goes on with, in pieces of bounded size."""
        while data:
            if self._one.eof and not (data := data.lstrip(b"\0")):  # padding, as tape writers do
                return
            if self._one.eof:
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise ValueError(f"Send a body of at most {_MAX_MEMBERS} compressed members.")
                self._one = zlib.decompressobj(_GZIP_OR_ZLIB)
            yield from self._of_member(data)
            data = self._one.unused_data

    def close(self) -> None:
        """Nothing more will come."""
        if not self._one.eof:
            raise ValueError("The compressed body ends too early; send it again.")

    def _of_member(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        while data or len(piece) == _STEP_BYTES:  # a full one may not be all there was
            try:
                piece = self._one.decompress(data, _STEP_BYTES)
            except zlib.error as error:
                raise ValueError("The body is not what its Content-Encoding says.") from error
            data = self._one.unconsumed_tail
            yield piece


def deflated(pieces: Sequence[bytes | memoryview], coding: str) -> list[bytes | memoryview]:
    """The same, compressed at the level that takes least."""
    from zlib_ng import zlib_ng

    one = zlib_ng.compressobj(1, zlib_ng.DEFLATED, zlib.MAX_WBITS + _WRAPPING[coding])
    return [*(one.compress(piece) for piece in pieces), one.flush()]


class Plain:
    """Bytes as they are; the others take something off, and raise ``ValueError``."""

    def feed(self, data: bytes) -> bytes:
        """What ``data`` goes on with."""
        return data

    def close(self) -> bytes:
        """What is left, now that nothing more comes."""
        return b""


class Base64(Plain):
    """Four characters at a time; white space between them does not count."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What all fours so far become."""
        data = self._rest + data.translate(None, b" \t\r\n")
        whole = len(data) // 4 * 4
        self._rest = data[whole:]
        try:
            return binascii.a2b_base64(data[:whole], strict_mode=True)
        except binascii.Error as error:
            raise ValueError("What should be base64 is something else.") from error

    def close(self) -> bytes:
        """Nothing, or there were too few characters."""
        if self._rest:
            raise ValueError("What should be base64 ends too early; send it again.")
        return b""


class _QuotedPrintable(Plain):
    """Line by line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        whole = data.rfind(b"\n") + 1
        self._rest = data[whole:]
        if len(self._rest) > _MAX_LINE_BYTES:
            raise ValueError("Send quoted-printable as lines of at most 76 characters.")
        return binascii.a2b_qp(data[:whole])

    def close(self) -> bytes:
        return binascii.a2b_qp(self._rest)


# By the value of Content-Transfer-Encoding (RFC 2045, section 6.1).
TRANSFER_ENCODINGS: dict[str, type[Plain]] = {
    "binary": Plain,
    "8bit": Plain,
    "7bit": Plain,
    "base64": Base64,
    "quoted-printable": _QuotedPrintable,
}
