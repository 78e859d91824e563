"""The arrays of a large JSON document, taken out of it and read a little at a time.

A parser would hold the interpreter, and so everyone, until it has read them all. What reads much is
a generator here: after each step of it others may go on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import orjson

from ppool.service.http.encodings import Base64

__all__ = ["Lifted", "Numbers", "Texts", "lifted"]

_STEP_BYTES = 64 * 1024

# A document has one; elsewhere in it may be others of that name.
_MAX_ARRAYS = 8

# Where a key `data` begins, with the bracket of its array; more white space than this is none.
_KEY = re.compile(rb'"data"\s{0,64}:\s{0,64}(?=\[)')
_OPENING = re.compile(rb"[\[\s]{1,64}")
_NUMERIC = re.compile(rb"[\d\s,\[\].eE+-]*")
_BETWEEN = re.compile(rb'\s{0,64}(?:,\s{0,64}(?=")|\][\]\s]{0,64})')
_FLAT = bytes.maketrans(b"[]", b"  ")


@dataclass(frozen=True)
class Numbers:
    """An array of numbers, nested or not: ``text[start:end]``."""

    text: bytes
    start: int
    end: int

    def pieces(self) -> Iterator[bytes]:
        """JSON arrays that together hold the numbers, flat.

        Raises:
            ValueError: if commas or brackets are not where they should be, as far as that is seen.
        """
        start = self.start
        while True:
            stop = min(start + _STEP_BYTES, self.end)
            if stop < self.end:
                stop = self.text.rfind(b",", start, stop)
            flat = self.text[start : max(stop, start)].translate(_FLAT)
            if (start > self.start or stop < self.end) and not flat.strip():
                raise ValueError("expected a number between two commas")
            yield b"[%s]" % flat
            if stop == self.end:
                return
            start = stop + 1


@dataclass(frozen=True)
class Texts:
    """An array of strings, as they stand between quotes: ``text[start:end]`` of ``places``."""

    text: bytes
    places: list[tuple[int, int]]

    def decoded(self) -> Generator[None, None, list[bytes]]:
        """What the strings are in base64.

        Raises:
            ValueError: if one is something else.
        """
        files = []
        for place in self.places:
            files.append((yield from self._decoded(*place)))
        return files

    def _decoded(self, start: int, end: int) -> Generator[None, None, bytes]:
        decoder, pieces = Base64(), []
        while start < end:
            stop = min(start + _STEP_BYTES, end)
            # Some encoders escape "/" and "="; a piece does not end within that.
            escape = self.text.rfind(b"\\", max(start + 1, stop - 6), stop) if stop < end else -1
            piece = self.text[start : escape if escape > 0 else stop]
            start += len(piece)
            if b"\\" in piece:
                piece = orjson.loads(b'"%s"' % piece).encode()
            pieces.append(decoder.feed(piece))
            yield
        return b"".join([*pieces, decoder.close()])


@dataclass(frozen=True)
class Lifted:
    """A document without the arrays under keys ``data``, which ``arrays`` has by what stands there.

    ``strange`` if an array was left in it, as it holds other things than these.
    """

    rest: bytes
    arrays: dict[str, Numbers | Texts]
    strange: bool


def lifted(text: bytes, most_rest: int, most_texts: int) -> Generator[None, None, Lifted]:
    """Take the arrays out of a JSON document.

    Args:
        text: Of the document, which may be none.
        most_rest: Bytes to look at beside the arrays; if ``rest`` is longer, it was not all seen.
        most_texts: Strings in an array; longer ones are left where they are.
    """
    rest, arrays, strange = [], dict[str, Numbers | Texts](), False
    place = looked = 0
    while len(arrays) < _MAX_ARRAYS:
        if (at := text.find(b'"data"', looked, looked + most_rest)) < 0:
            break
        looked = at + 1
        if not (key := _KEY.match(text, at)):
            continue
        opening = _OPENING.match(text, key.end())
        found: tuple[Numbers | Texts, int] | None
        if opening and text.startswith(b'"', opening.end()):
            found = _texts(text, opening.end(), most_texts)
        else:
            found = yield from _numbers(text, key.end())
        if found is None:
            strange = True
            continue
        mark = secrets.token_hex()
        arrays[mark] = found[0]
        rest.append(b'%s"%s"' % (text[place : key.end()], mark.encode()))
        place = looked = found[1]
        yield
    rest.append(text[place : place + most_rest + 1])
    return Lifted(b"".join(rest), arrays, strange)


def _numbers(text: bytes, start: int) -> Generator[None, None, tuple[Numbers, int] | None]:
    """The array that begins at ``start``, and where it ends."""
    end, depth = start, 0
    while (stop := _NUMERIC.match(text, end, end + _STEP_BYTES).end()) > end:  # type: ignore[union-attr]
        depth += text.count(b"[", end, stop) - text.count(b"]", end, stop)
        end = stop
        yield
    # Brackets of what the array is in come after a brace at the earliest.
    end = text.rfind(b"]", start, end) + 1
    return (Numbers(text, start, end), end) if end and not depth else None


def _texts(text: bytes, place: int, most: int) -> tuple[Texts, int] | None:
    """The array whose first quote is at ``place``, and where it ends."""
    places: list[tuple[int, int]] = []
    while len(places) < most:
        close = text.find(b'"', place + 1)
        places.append((place + 1, close))
        # What is escaped is no base64, so the quote was the end.
        after = _BETWEEN.match(text, close + 1) if close > 0 else None
        if after is None:
            return None
        place = after.end()
        if not text.startswith(b'"', place):
            return Texts(text, places), place
    return None
