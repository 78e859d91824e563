"""The outputs of the Open Inference Protocol, made and written a little at a time.

What makes or writes much is a generator: after each step of it others may go on.
"""

from __future__ import annotations

import binascii
import io
import struct
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from ppool.service.answers import Encoded
from ppool.service.http import named
from ppool.service.http.errors import BadRequest
from ppool.service.http.exchange import Order
from ppool.service.http.tensors import SHOWN, Inference, photos
from ppool.service.http.turns import Turns
from ppool.service.models import Served

__all__ = ["Tensor", "order", "rendered"]

_STEP_VALUES = 16 * 1024
# Whole groups of base64.
_STEP_BYTES = 3 * 64 * 1024
_STEP_PIXELS = 256 * 1024

R = TypeVar("R")

_DATATYPES = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}


@dataclass(frozen=True)
class Tensor:
    """One output: an array for each photo, or elements of BYTES, in JSON as text or as base64."""

    name: str
    datatype: str
    shape: list[int]
    arrays: Sequence[NDArray[Any]] = ()
    elements: Sequence[bytes] = ()
    is_text: bool = True

    def binary(self) -> list[memoryview]:
        """The bytes of it, in pieces; each element is behind its length, 4 bytes, little-endian."""
        lengths = (struct.pack("<I", len(element)) for element in self.elements)
        pieces = [piece for pair in zip(lengths, self.elements, strict=False) for piece in pair]
        return [memoryview(piece) for piece in pieces] + [
            array.ravel().view(np.uint8).data for array in self.arrays
        ]


async def order(
    turns: Turns,
    inference: Inference,
    served: Served,
    most_images: int,
    write: Callable[[list[Tensor]], Awaitable[R]],
) -> Order[R]:
    """What a request asks for; ``write`` makes the answer of its outputs.

    Raises:
        BadRequest: if it asks for what this model has not, or sends no photos.
        TooLarge: if it holds more than ``most_images``.
    """
    uploads = await turns.take(photos(inference, most_images))
    options = inference.options
    known = [entry["name"] for entry in named.outputs(served.model)]
    wanted = inference.outputs(known, named.default(options))
    asked = named.answer(served.model, wanted, options)
    called = {str(part): file for part, file in named.FILES.items()}

    async def render(parts: list[Encoded]) -> R:
        files = {name: [part.files[called.get(name, name)] for part in parts] for name in wanted}
        classes = [label.name for label in served.model.classes]
        return await write(await turns.take(_tensors(inference, files, classes)))

    return Order(uploads, asked, render, served, inference.seconds)


def _tensors(
    inference: Inference, files: Mapping[str, list[bytes]], classes: Sequence[str]
) -> Generator[None, None, list[Tensor]]:
    """The outputs that were asked for.

    Args:
        inference: What was asked.
        files: Those of each output, one for each image: arrays (NPY), or what is answered.
        classes: Their names, by id.

    Raises:
        BadRequest: if one tensor cannot hold them.
    """
    wanted = {output.name: output.parameters for output in inference.document.outputs}
    found = []
    for name, contents in files.items():
        if name in named.FILES:
            if wanted.get(name, {}).get("classification") is not None:
                raise _unclassified(name)
            is_text = not named.FILES[name].endswith(".png")
            found.append(Tensor(name, "BYTES", [len(contents)], elements=contents, is_text=is_text))
            continue
        arrays = [_array(file) for file in contents]
        if (most := wanted.get(name, {}).get("classification")) is not None:
            found.append((yield from _classified(name, arrays, most, classes)))
            continue
        if len({array.shape for array in arrays}) > 1:
            raise BadRequest(
                "One tensor cannot hold masks of different sizes; send photos of one size."
            )
        shape = [len(arrays), *arrays[0].shape]
        found.append(Tensor(name, _DATATYPES[str(arrays[0].dtype)], shape, arrays))
    return found


def _classified(
    name: str, masks: list[NDArray[Any]], most: object, classes: Sequence[str]
) -> Generator[None, None, Tensor]:
    """The classes that cover most of each photo, as Triton writes them: ``share:id:name``."""
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise BadRequest(f"classification: expected how many classes, got {str(most)[:SHOWN]!r}.")
    if name != "mask":
        raise _unclassified(name)
    texts = list[bytes]()
    for mask in masks:
        pixels, counts = mask.ravel(), np.zeros(len(classes), np.int64)
        for start in range(0, pixels.size, _STEP_PIXELS):
            found = np.bincount(pixels[start : start + _STEP_PIXELS], minlength=len(classes))
            counts += found[: len(classes)]  # what is beyond is of no class
            yield
        order = sorted(range(len(classes)), key=lambda index: -counts[index])
        texts += [
            f"{counts[index] / pixels.size:.6f}:{index}:{classes[index]}".encode()
            for index in order[:most]
        ]
    return Tensor(name, "BYTES", [len(masks), min(most, len(classes))], elements=texts)


def _unclassified(name: str) -> BadRequest:
    return BadRequest(
        f"classification: 'mask' has classes, {name[:SHOWN]!r} has none; leave it out there."
    )


def rendered(
    inference: Inference, about: Mapping[str, str], outputs: Sequence[Tensor]
) -> Generator[None, None, tuple[list[bytes | memoryview], int | None]]:
    """The answer in pieces, and how many bytes of it are JSON where not all are.

    Args:
        inference: What was asked.
        about: What the answer begins with.
        outputs: What it holds.

    Raises:
        BadRequest: if a flag is no boolean.
    """
    document = inference.document
    everything = _flag(document.parameters, "binary_data_output", default=False)
    binary = {
        output.name: _flag(output.parameters, "binary_data", default=everything)
        for output in document.outputs
    }
    about = {**about, "id": document.id} if document.id else about
    text, blobs = [orjson.dumps(about)[:-1] + b',"outputs":['], list[memoryview]()
    for number, tensor in enumerate(outputs):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        text.append(b"," if number else b"")
        if binary.get(tensor.name, everything):
            pieces = tensor.binary()
            entry["parameters"] = {"binary_data_size": sum(map(len, pieces))}
            text.append(orjson.dumps(entry))
            blobs += pieces
            yield
        else:
            text.append(orjson.dumps(entry)[:-1] + b',"data":[')
            for piece in _values(tensor):
                text.append(piece)
                yield
            text.append(b"]}")
    text.append(b"]}")
    return [*text, *blobs], sum(map(len, text)) if blobs else None


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    given = parameters.get(name)
    if given is None:
        return default
    if not isinstance(given, bool):
        raise BadRequest(f"{name}: expected true or false, got {str(given)[:SHOWN]!r}.")
    return given


def _array(file: bytes) -> NDArray[Any]:
    """The array of an NPY file, where it lies."""
    head = io.BytesIO(file)
    np.lib.format.read_magic(head)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    flat = np.frombuffer(file, dtype, offset=head.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _values(tensor: Tensor) -> Iterator[bytes]:
    """What a tensor holds as JSON, with commas between."""
    comma = b""
    for element in tensor.elements:
        yield comma + b'"'
        yield from _quoted(element, is_text=tensor.is_text)
        yield b'"'
        comma = b","
    for array in tensor.arrays:
        flat = array.ravel()
        for start in range(0, flat.size, _STEP_VALUES):
            part = flat[start : start + _STEP_VALUES]
            yield comma + orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
            comma = b","


def _quoted(element: bytes, *, is_text: bool) -> Iterator[bytes]:
    """What stands between the quotes."""
    if is_text:
        text = str(element, "utf-8")
        for start in range(0, len(text), _STEP_BYTES):
            yield orjson.dumps(text[start : start + _STEP_BYTES])[1:-1]
        return
    for start in range(0, len(element), _STEP_BYTES):
        yield binascii.b2a_base64(element[start : start + _STEP_BYTES], newline=False)
