"""The Open Inference Protocol, version 2, with its binary tensor extension: ``/v2``.

One input, ``image``: UINT8 [N, H, W, 3], RGB, or BYTES [N], photo files (base64 in JSON). Outputs:
``mask``, UINT8 [N, H, W] at the photos' own size, and on request the alpha map of each pooling
stage, FP32 [N, C, h, w].
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import math
import re
import struct
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from ppool.service.codecs.answers import TENSORS, Alpha, Answer, Encoded
from ppool.service.engine import Engine
from ppool.service.http.errors import BadRequest, DeadlinePassed, TooLarge
from ppool.service.http.segment import observe, segment_all, while_connected
from ppool.service.http.uploads import Upload, read_body
from ppool.service.models import Served
from ppool.service.timing import Progress

__all__ = ["add_open_inference"]

HEADER_LENGTH = "Inference-Header-Content-Length"
INPUT, VERSION = "image", "1"
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


def _short(most: int) -> Any:
    """A list of so many, whose faults end at the first: a body has room for millions of them."""
    return Field(max_length=most, fail_fast=True)


class _Input(BaseModel):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], _short(4)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Output(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class _Inference(BaseModel):
    id: str = ""
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[_Input], Field(min_length=1), _short(1)]
    outputs: Annotated[list[_Output], _short(64)] = []


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def add_open_inference(app: FastAPI, engine: Engine) -> None:
    """Serve the protocol on ``engine``, beside the service's own API."""

    def route(method: str, path: str) -> Callable[[Callable[..., Awaitable[Response]]], Any]:
        return app.api_route(
            f"/v2{path}",
            methods=[method],
            tags=["open inference protocol"],
            response_class=Response,
            openapi_extra={
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in re.findall(r"{(\w+)}", path)
                ]
            },
            responses={
                "default": {
                    "description": "`error` says what to do about it.",
                    "content": {"application/json": {"schema": _ERROR}},
                }
            },
        )

    @route("GET", "")
    async def server() -> Response:
        """Name, version and extensions of the server."""
        about = {"name": "ppool", "version": version("ppool")}
        return _json(about | {"extensions": ["binary_tensor_data"]})

    @route("GET", "/health/live")
    async def live() -> Response:
        """Whether the process answers at all."""
        return _json({"live": True})

    @route("GET", "/health/ready")
    async def ready() -> Response:
        """Whether requests are welcome."""
        return _json({"ready": engine.ready()}, 200 if engine.ready() else 503)

    for place in ("/models/{name}", "/models/{name}/versions/{version}"):

        @route("GET", place)
        async def model(request: Request) -> Response:
            """Inputs and outputs of a model."""
            return await _of_model(request, _metadata)

        @route("GET", f"{place}/ready")
        async def model_ready(request: Request) -> Response:
            """Whether a model takes requests."""
            return await _of_model(request, _readiness)

        @route("POST", f"{place}/infer")
        async def infer(request: Request) -> Response:
            """Segment the photos of a tensor."""
            return await _of_model(request, _infer)

    async def _of_model(
        request: Request, work: Callable[[Engine, Served, Request], Awaitable[Response]]
    ) -> Response:
        served = engine.served(request.path_params["name"])
        if request.path_params.get("version", VERSION) != VERSION:
            raise BadRequest(f"Every model has the one version {VERSION!r}.")
        return await work(engine, served, request)


async def _metadata(_: Engine, served: Served, __: Request) -> Response:
    about = served.model.metadata
    outputs = [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]
    outputs += [
        {"name": stage.output, "datatype": "FP32", "shape": [-1, stage.channels, -1, -1]}
        for stage in about.stages
    ]
    return _json(
        {
            "name": served.model.name,
            "versions": [VERSION],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": outputs,
        }
    )


async def _readiness(engine: Engine, served: Served, _: Request) -> Response:
    ready = {"name": served.model.name, "ready": engine.ready()}
    return _json(ready, 200 if engine.ready() else 503)


async def _infer(engine: Engine, served: Served, request: Request) -> Response:
    start, limit = time.monotonic(), engine.settings.request_timeout_seconds
    with engine.admission(served, start + limit) as hold:
        try:
            async with asyncio.timeout(limit):
                body = await read_body(request, engine.settings, hold)
                inference, binary = _parsed(request, body)
                uploads = _photos(inference.inputs[0], binary)
                if len(uploads) > engine.settings.max_images:
                    raise TooLarge(
                        f"Send at most {engine.settings.max_images} images in a request."
                    )
                stages = {stage.output for stage in served.model.metadata.stages}
                names = dict.fromkeys(output.name for output in inference.outputs)
                wanted = list(names) or ["mask"]
                if unknown := set(wanted) - stages - {"mask"}:
                    raise BadRequest(f"This model has no output called {min(unknown)!r}.")
                alpha: Alpha = "full" if stages.intersection(wanted) else "none"
                answer = Answer(TENSORS, alpha, overlay=False, rle=False)
                progress = [Progress() for _ in uploads]
                work = segment_all(engine, served, uploads, answer, progress, start + limit)
                parts = await while_connected(request, work)
        except TimeoutError:
            raise DeadlinePassed("infer") from None
    observe(engine, served, parts, time.monotonic() - start)
    tensors = {name: _stacked(parts, name) for name in wanted}
    return _answered(inference, served, tensors)


def _parsed(request: Request, body: bytes) -> tuple[_Inference, bytes]:
    """The JSON document of a request, and the bytes behind it."""
    length = request.headers.get(HEADER_LENGTH, str(len(body)))
    if not length.isdecimal() or int(length) > len(body):
        raise BadRequest(f"{HEADER_LENGTH}: expected at most {len(body)}, got {length!r}.")
    try:
        inference = _Inference.model_validate_json(body[: int(length)])
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise BadRequest(f"Correct the request: {'; '.join(faults)}.") from error
    return inference, body[int(length) :]


def _photos(tensor: _Input, binary: bytes) -> list[Upload]:
    """A photo file for each image of the tensor."""
    if tensor.name != INPUT:
        raise BadRequest(f"Send the one input {INPUT!r}, not {tensor.name!r}.")
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise BadRequest("Give the input either data or the parameter binary_data_size.")
    if size is not None and size != len(binary):
        raise BadRequest(f"binary_data_size: expected {len(binary)}, what follows, got {size!r}.")
    match tensor.datatype, tensor.shape:
        case "BYTES", [count] | [count, 1]:
            files = _elements(binary) if tensor.data is None else _texts(tensor.data)
            if len(files) != count:
                raise BadRequest(f"shape: expected {len(files)} elements, what was sent.")
        case "UINT8", [_, height, width, 3] if height and width:
            pixels = _pixels(tensor, binary)
            files = [_tiff(image) for image in pixels]
        case _:
            raise BadRequest(
                "Send the input as UINT8 [N, H, W, 3] or as BYTES [N], not as "
                f"{tensor.datatype} {tensor.shape}."
            )
    if not files:
        raise BadRequest("Send at least one image.")
    return [Upload(f"image {index}", file) for index, file in enumerate(files)]


def _elements(binary: bytes) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length as 4 bytes, little-endian."""
    elements, place = [], 0
    while place < len(binary):
        if len(binary) - place < 4:
            raise BadRequest("The BYTES tensor ends inside a length.")
        (length,) = struct.unpack_from("<I", binary, place)
        place += 4 + length
        if place > len(binary):
            raise BadRequest("The BYTES tensor ends inside an element.")
        elements.append(binary[place - length : place])
    return elements


def _texts(data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadRequest("Send the elements of a BYTES tensor in JSON as base64.") from error


def _pixels(tensor: _Input, binary: bytes) -> NDArray[np.uint8]:
    try:
        if tensor.data is None:
            flat = np.frombuffer(binary, np.uint8)
        else:
            flat = np.array(tensor.data, np.uint8).ravel()
        if flat.size != math.prod(tensor.shape):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        count = math.prod(tensor.shape)
        raise BadRequest(f"Send {count} values from 0 to 255 for {tensor.shape}.") from error
    return flat.reshape(tensor.shape)


def _tiff(image: NDArray[np.uint8]) -> bytes:
    """Uncompressed, so that pixels go the way of photo files at the price of two copies."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "TIFF")
    return file.getvalue()


def _stacked(parts: list[Encoded], name: str) -> NDArray[Any]:
    arrays = [np.load(io.BytesIO(part.files[name]), allow_pickle=False) for part in parts]
    if len({array.shape for array in arrays}) > 1:
        raise BadRequest(
            "One tensor cannot hold masks of different sizes; send photos of one size."
        )
    return np.stack(arrays)


def _answered(inference: _Inference, served: Served, tensors: dict[str, NDArray[Any]]) -> Response:
    everything = inference.parameters.get("binary_data_output", False)
    binary = {
        output.name
        for output in inference.outputs
        if output.parameters.get("binary_data", everything)
    }
    if everything and not inference.outputs:
        binary = set(tensors)
    outputs, blobs = [], []
    for name, array in tensors.items():
        entry: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES[str(array.dtype)],
            "shape": list(array.shape),
        }
        if name in binary:
            blobs.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = array.ravel()
        outputs.append(entry)
    document = {"model_name": served.model.name, "model_version": VERSION, "outputs": outputs}
    if inference.id:
        document["id"] = inference.id
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(
        b"".join((text, *blobs)), headers=headers, media_type="application/octet-stream"
    )


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
