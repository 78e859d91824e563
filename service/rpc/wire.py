"""A request for masks, cut apart before protobuf reads it, a little at a time.

The parser would hold the interpreter, and so everyone, until it has read 32 million numbers, and
would make an object of each of as many empty messages. What reads much is a generator here: after
each step of it others may go on. The form is that of
https://protobuf.dev/programming-guides/encoding/, numbers of fields are those of
``protos/inference.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppool.service.http.errors import BadRequest, TooLarge

__all__ = ["Lifted", "lifted", "written"]

# How fields are written.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Numbers of fields: of ModelInferRequest, of its inputs, of their contents, of ModelInferResponse.
_INPUTS, _RAW_INPUTS = 5, 7
_CONTENTS = 5
_UINTS, _FILES = 4, 8
_RAW_OUTPUTS = 6

_STEP_FIELDS, _STEP_BYTES = 500, 256 * 1024
# A request has one.
_MAX_TENSORS = 64


class Field(NamedTuple):
    """One field of a message: its number, how it is written, what it holds, and all of it."""

    number: int
    form: int
    content: memoryview
    whole: memoryview


@dataclass(frozen=True)
class Lifted:
    """A request without what its tensors hold.

    Attributes:
        rest: The message without it.
        raw: What ``raw_input_contents`` holds.
        typed: What ``contents`` of the inputs hold, as if it had been sent so; ``None`` if there
            are none.
    """

    rest: bytes
    raw: list[memoryview]
    typed: bytes | None


def lifted(message: bytes, most_rest: int, most_files: int) -> Generator[None, None, Lifted]:
    """Take what the tensors hold out of a serialized ``ModelInferRequest``.

    Args:
        message: As received.
        most_rest: Bytes of it beside that.
        most_files: Elements of ``bytes_contents``.

    Raises:
        BadRequest: if it is no such message, or holds other tensors than are taken.
        TooLarge: if it says too much beside them.
    """
    rest, raw, contents = list[bytes | memoryview](), list[memoryview](), list[memoryview]()
    size = 0
    for number, field in enumerate(_fields(memoryview(message))):
        if number % _STEP_FIELDS == 0:
            yield
        if field.form == _BYTES and field.number == _RAW_INPUTS:
            raw.append(field.content)
            _check(raw)
            continue
        kept: bytes | memoryview = field.whole
        if field.form == _BYTES and field.number == _INPUTS:
            kept = yield from _without_contents(field.content, contents, most_rest)
        rest.append(kept)
        size += len(kept)
        if size > most_rest:
            raise TooLarge(f"Send at most {most_rest} bytes beside the tensors.")
    typed = (yield from _typed(contents, most_files)) if contents else None
    return Lifted(b"".join(rest), raw, typed)


def _without_contents(
    message: memoryview, contents: list[memoryview], most: int
) -> Generator[None, None, bytes]:
    """An input as a field of a request, but for its contents, which are added to ``contents``."""
    kept = bytearray()
    for number, field in enumerate(_fields(message)):
        if number % _STEP_FIELDS == 0:
            yield
        if field.form == _BYTES and field.number == _CONTENTS:
            contents.append(field.content)
            _check(contents)
        else:
            kept += field.whole
            if len(kept) > most:
                break
    return _key(_INPUTS) + _size(len(kept)) + kept


def _check(tensors: list[memoryview]) -> None:
    if len(tensors) > _MAX_TENSORS:
        raise BadRequest(f"Send at most {_MAX_TENSORS} tensors.")


def _typed(contents: list[memoryview], most_files: int) -> Generator[None, None, bytes]:
    """What tensors hold by their types, as raw contents would have it."""
    numbers, files = list[NDArray[np.uint8]](), list[memoryview]()
    for field in (field for message in contents for field in _fields(message)):
        what = field.number, field.form
        if what == (_UINTS, _BYTES):  # packed, as everything in proto3 is by default
            numbers += yield from _uint8(field.content)
        elif what == (_FILES, _BYTES):
            files.append(field.content)
            if len(files) > most_files:
                raise TooLarge(f"Send at most {most_files} images in a request.")
        else:
            raise BadRequest(
                "Send UINT8 as raw_input_contents or, packed, as uint_contents, and BYTES as "
                "raw_input_contents or bytes_contents."
            )
        yield
    if numbers and files:
        raise BadRequest("Send a tensor as uint_contents or as bytes_contents, not as both.")
    elements = (part for file in files for part in (struct.pack("<I", len(file)), file))
    return b"".join((*(array.data for array in numbers), *elements))


def _uint8(packed: memoryview) -> Generator[None, None, list[NDArray[np.uint8]]]:
    """Whole numbers from 0 to 255, which take a byte, or from 128 on two."""
    pieces, second = list[NDArray[np.uint8]](), False
    for start in range(0, len(packed), _STEP_BYTES):
        octets = np.frombuffer(packed[start : start + _STEP_BYTES], np.uint8)
        goes_on = octets > 127
        seconds = np.concatenate(([second], goes_on[:-1]))
        # The first byte is the number itself: its low bits, and 128 of which the second has the 1.
        if (octets[seconds] != 1).any():
            raise BadRequest("Send whole numbers from 0 to 255 as UINT8.")
        pieces.append(octets[~seconds])
        second = bool(goes_on[-1])
        yield
    if second:
        raise _broken()
    return pieces


def _fields(message: memoryview) -> Iterator[Field]:
    place, end = 0, len(message)
    while place < end:
        begin = place
        key, place = _varint(message, place)
        form = key & 7
        if form == _BYTES:
            size, place = _varint(message, place)
        elif form == _VARINT:
            size = _varint(message, place)[1] - place
        elif form in (_FIXED32, _FIXED64):
            size = 4 if form == _FIXED32 else 8
        else:
            raise _broken()
        if size > end - place:
            raise _broken()
        content = message[place : place + size]
        place += size
        yield Field(key >> 3, form, content, message[begin:place])


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift, octet in enumerate(message[place : place + 10]):
        value |= (octet & 127) << 7 * shift
        if octet < 128:
            return value, place + shift + 1
    raise _broken()


def _broken() -> BadRequest:
    return BadRequest("That is no ModelInferRequest; let a client library write it.")


def written(head: bytes, tensors: Iterable[list[memoryview]]) -> Generator[None, None, bytes]:
    """A serialized ``ModelInferResponse``: ``head``, and ``raw_output_contents`` behind it.

    Protobuf would copy what the tensors hold thrice.
    """
    pieces: list[bytes | memoryview] = [head]
    for parts in tensors:
        pieces += [_key(_RAW_OUTPUTS), _size(sum(len(part) for part in parts)), *parts]
        yield
    return b"".join(pieces)


def _key(number: int) -> bytes:
    return bytes([number << 3 | _BYTES])


def _size(value: int) -> bytes:
    """A number as a varint."""
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])
