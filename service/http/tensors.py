"""The requests of the Open Inference Protocol, read a little at a time.

What reads much is a generator: after each step of it others may go on.
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError, model_validator

from ppool.service.http.arrays import Numbers, Texts, lifted
from ppool.service.http.errors import BadRequest, TooLarge
from ppool.service.http.forms import Upload
from ppool.service.http.options import SegmentOptions

__all__ = [
    "DOCUMENT_BYTES",
    "INPUT",
    "OPTIONS",
    "SHOWN",
    "Inference",
    "checked",
    "parsed",
    "photos",
]

INPUT = "image"

_STEP_VALUES = 16 * 1024
# Of JSON beside the data; a request has a few hundred.
DOCUMENT_BYTES = 256 * 1024
SHOWN = 80
# Parameters that are options of ``POST /segment`` as well.
OPTIONS = ("classes", "cutout", "tolerance", "mode", "page")
_DAY_MICROSECONDS = 86_400_000_000
_DATA = "Send data as a list of whole numbers from 0 to 255, or of at most {} texts in base64."


def _short(most: int) -> Any:
    """A list of so many, whose faults end at the first: a body has room for millions of them."""
    return Field(max_length=most, fail_fast=True)


class _Nullable(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        """Null is "not set"."""
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given


class _Input(_Nullable):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], _short(4)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(_Nullable):
    name: str
    parameters: dict[str, Any] = {}


class Document(_Nullable):
    """A request beside the data."""

    id: str = ""
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[_Input], Field(min_length=1), _short(1)]
    outputs: Annotated[list[_Output], _short(64)] = []


@dataclass(frozen=True)
class Inference:
    """A request: its document, the array that was in it, and the bytes behind it."""

    document: Document
    data: Numbers | Texts | None
    binary: memoryview

    def outputs(self, known: Sequence[str], default: str) -> list[str]:
        """The names of what is wanted, each once.

        Raises:
            BadRequest: if one is not known.
        """
        wanted = list(dict.fromkeys(output.name for output in self.document.outputs))
        if unknown := set(wanted).difference(known):
            raise BadRequest(f"This model has no output called {min(unknown)[:SHOWN]!r}.")
        return wanted or [default]

    @property
    def options(self) -> SegmentOptions:
        """The parameters that mean what options of ``POST /segment`` do.

        Raises:
            BadRequest: if one is no such value.
        """
        parameters = self.document.parameters.items()
        given = {name: v for name, v in parameters if name in OPTIONS and v is not None}
        try:
            return SegmentOptions.model_validate(given, strict=True)
        except ValidationError as error:
            raise BadRequest.of(error) from error

    @property
    def seconds(self) -> float | None:
        """The time limit that Triton's parameter ``timeout`` says, in microseconds there.

        Raises:
            BadRequest: if it is no such number.
        """
        limit = self.document.parameters.get("timeout")
        if limit is None or (limit == 0 and limit is not False):
            return None
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise BadRequest(f"timeout: expected microseconds, got {str(limit)[:SHOWN]!r}.")
        return min(limit, _DAY_MICROSECONDS) / 1e6


def parsed(
    body: bytes, header_length: str | None, max_images: int
) -> Generator[None, None, Inference]:
    """The document at the beginning of ``body`` and the bytes behind it.

    Args:
        body: Of the request.
        header_length: How many bytes are the document, as the client says it; ``None`` is all.
        max_images: Most elements of a BYTES tensor.

    Raises:
        BadRequest: if it is no such document.
        TooLarge: if it says too much beside the data.
    """
    length = len(body) if header_length is None else _count(header_length, len(body))
    text = body[:length].removeprefix(codecs.BOM_UTF8)
    found = yield from lifted(text, DOCUMENT_BYTES, max_images)
    if len(found.rest) > DOCUMENT_BYTES:
        if found.strange:
            raise BadRequest(_DATA.format(max_images))
        raise TooLarge(f"Send at most {DOCUMENT_BYTES} bytes of JSON beside the data.")
    document = checked(found.rest)
    mark = document.inputs[0].data
    if mark is not None and (not isinstance(mark, str) or mark not in found.arrays):
        raise BadRequest(_DATA.format(max_images))
    data = None if mark is None else found.arrays[mark]
    return Inference(document, data, memoryview(body)[length:])


def checked(given: bytes | dict[str, Any]) -> Document:
    """A request's document without the data, of JSON or already read.

    Raises:
        BadRequest: if it is none.
    """
    try:
        if isinstance(given, bytes):
            return Document.model_validate_json(given)
        return Document.model_validate(given)
    except ValidationError as error:
        raise BadRequest.of(error) from error


def _count(given: str, most: int) -> int:
    if not given.isascii() or not given.isdecimal() or len(given) > 20 or int(given) > most:
        raise BadRequest(
            f"Inference-Header-Content-Length: expected at most {most}, got {given[:SHOWN]!r}."
        )
    return int(given)


def photos(inference: Inference, max_images: int) -> Generator[None, None, list[Upload]]:
    """A photo file for each image of the input.

    Raises:
        BadRequest: if the input is no such tensor.
        TooLarge: if it holds more than ``max_images``.
    """
    tensor, binary = inference.document.inputs[0], inference.binary
    if tensor.name != INPUT:
        raise BadRequest(f"Send the one input {INPUT!r}, not {tensor.name[:SHOWN]!r}.")
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (inference.data is None):
        raise BadRequest("Give the input either data or the parameter binary_data_size.")
    if size is not None and (isinstance(size, bool) or size != len(binary)):
        raise BadRequest(
            f"binary_data_size: expected {len(binary)}, what follows, got {str(size)[:SHOWN]}."
        )
    match tensor.datatype, tensor.shape:
        case "BYTES" | "UINT8", [count, *_] if count > max_images:
            raise TooLarge(f"Send at most {max_images} images in a request.")
        case "BYTES", [count] | [count, 1]:
            files = yield from _files(inference, count)
        case "UINT8", [count, height, width, 3] if height and width:
            pixels = yield from _pixels(inference, tensor.shape)
            files, size = [], height * width * 3
            for start in range(0, len(pixels), size):
                files.append(_tiff(pixels[start : start + size], height, width))
                yield
        case _:
            raise BadRequest(
                "Send the input as UINT8 [N, H, W, 3] or as BYTES [N], not as "
                f"{tensor.datatype[:SHOWN]} {tensor.shape}."
            )
    if not files:
        raise BadRequest("Send at least one image.")
    return [Upload(f"image {index}", file) for index, file in enumerate(files)]


def _files(inference: Inference, count: int) -> Generator[None, None, list[bytes]]:
    """The elements of a BYTES tensor: base64, or each behind its length, 4 bytes, little-endian."""
    binary, elements, place = inference.binary, list[bytes](), 0
    try:
        match inference.data:
            case Texts():
                elements = yield from inference.data.decoded()
            case Numbers() if any(map(orjson.loads, inference.data.pieces())):
                raise ValueError("numbers")
    except ValueError as error:
        raise BadRequest("Send the elements of a BYTES tensor in JSON as base64.") from error
    while place < len(binary) and len(elements) <= count:
        if len(binary) - place < 4:
            raise BadRequest("The BYTES tensor ends inside a length.")
        (length,) = struct.unpack_from("<I", binary, place)
        place += 4 + length
        if place > len(binary):
            raise BadRequest("The BYTES tensor ends inside an element.")
        elements.append(bytes(binary[place - length : place]))
        yield
    if len(elements) != count:
        raise BadRequest(f"shape: expected as many elements as were sent, got {count}.")
    return elements


def _pixels(inference: Inference, shape: list[int]) -> Generator[None, None, memoryview]:
    """The values of a UINT8 tensor, flat."""
    count = math.prod(shape)
    refusal = BadRequest(f"Send {count} whole numbers from 0 to 255 for {shape}.")
    if inference.data is None:
        if len(inference.binary) != count:
            raise refusal
        return inference.binary
    if not isinstance(inference.data, Numbers):
        raise refusal
    pieces = []
    try:
        for text in inference.data.pieces():
            pieces.append(_bytes(orjson.loads(text)))
            yield
    except (ValueError, TypeError) as error:
        raise refusal from error
    if sum(map(len, pieces)) != count:
        raise refusal
    return memoryview(b"".join(pieces))


def _bytes(values: list[Any]) -> bytes:
    """Numbers as bytes; some writers put a point behind whole ones."""
    try:
        return bytes(values)
    except TypeError:
        whole = list(map(int, values))
        if whole != values:
            raise
        return bytes(whole)


def _tiff(pixels: memoryview, height: int, width: int) -> bytes:
    """An uncompressed file, so that pixels go the way of photos at the price of a copy.

    Pillow takes 20 times as long.
    """
    depths, pixels_at = 8 + 2 + 10 * 12 + 4, 8 + 2 + 10 * 12 + 4 + 6
    short, long = 3, 4
    entries = (  # tag, type, count, value; TIFF 6.0, section 6
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, depths),
        (259, short, 1, 1),  # no compression
        (262, short, 1, 2),  # RGB
        (273, long, 1, pixels_at),
        (277, short, 1, 3),
        (278, long, 1, height),
        (279, long, 1, len(pixels)),
        (284, short, 1, 1),  # interleaved
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"".join((head, directory, struct.pack("<I3H", 0, 8, 8, 8), pixels))
