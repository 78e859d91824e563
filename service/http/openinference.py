"""The Open Inference Protocol, version 2, with its binary tensor extension: ``/v2``.

One input, ``image``: UINT8 [N, H, W, 3], RGB, or BYTES [N], photo files (base64 in JSON). Outputs:
``mask``, UINT8 [N, H, W] at the photos' own size (UINT16 of more than 256 classes), and on request
the alpha map of each pooling stage, FP32 [N, C, h, w], and of that size ``probability`` and
``probability/<class>``, FP32, and the ``plane/<class>`` of a multilabel model, UINT8; ``overlay``
and ``cutout``, PNG files, ``polygons``, GeoJSON, ``components`` and ``coco``, JSON, BYTES [N]. The
parameters ``classes``, ``cutout``, ``tolerance``, ``mode`` and ``page`` mean what they do in
``/segment``.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response

from ppool.service.engine import Engine
from ppool.service.http import control, documents, openapi
from ppool.service.http.bodies import read_body
from ppool.service.http.documents import VERSION
from ppool.service.http.encodings import CODINGS, deflated
from ppool.service.http.errors import BadRequest
from ppool.service.http.exchange import Hold, Order, exchange
from ppool.service.http.negotiation import choose
from ppool.service.http.pieces import Pieces
from ppool.service.http.tensors import parsed
from ppool.service.http.turns import Turns
from ppool.service.models import Served

if TYPE_CHECKING:
    from ppool.service.http.outputs import Tensor

__all__ = ["add_open_inference"]

HEADER_LENGTH = "Inference-Header-Content-Length"

# Of requests without tensors.
_DOCUMENT_BYTES = 64 * 1024
# What is smaller fits one packet anyway.
_LEAST_BYTES = 1400
# With NumPy, which a server of photos has no use for.
_OUTPUTS = "ppool.service.http.outputs"


def add_open_inference(app: FastAPI, engine: Engine) -> None:
    """Serve the protocol on ``engine``, beside the service's own API."""
    turns = Turns()

    def route(
        method: str, path: str, name: str, **more: Any
    ) -> Callable[[Callable[..., Awaitable[Response]]], Any]:
        return app.api_route(
            f"/v2{path}",
            methods=[method],
            operation_id=f"v2_{name}",
            tags=["open inference protocol"],
            response_class=Response,
            openapi_extra=openapi.in_path(*re.findall(r"{(\w+)}", path)) | more,
            responses=openapi.INFERENCE_ERROR,
        )

    @route("GET", "", "server")
    async def server() -> Response:
        """Name, version and extensions of the server."""
        return _json(documents.server())

    @route("GET", "/health/live", "live")
    async def live() -> Response:
        """Whether the process answers at all."""
        return _json({"live": engine.alive}, 200 if engine.alive else 503)

    @route("GET", "/health/ready", "ready")
    async def ready() -> Response:
        """Whether requests are welcome."""
        return _json({"ready": engine.ready()}, 200 if engine.ready() else 503)

    @route("GET", "/models/stats", "statistics")
    async def statistics() -> Response:
        """What was asked of each model since the server started."""
        return _json(documents.statistics(engine, list(engine.registry.models.values())))

    places = {"model": "/models/{name}", "version": "/models/{name}/versions/{version}"}
    for what, place in places.items():

        @route("GET", place, what)
        async def model(request: Request) -> Response:
            """Inputs and outputs of a model."""
            return _json(documents.metadata(_served(engine, request)))

        @route("GET", f"{place}/ready", f"{what}_ready")
        async def model_ready(request: Request) -> Response:
            """Whether a model takes requests."""
            ready = {"name": _served(engine, request).model.name, "ready": engine.ready()}
            return _json(ready, 200 if engine.ready() else 503)

        @route("GET", f"{place}/config", f"{what}_config")
        async def model_config(request: Request) -> Response:
            """A model as Triton's configuration has it."""
            return _json(documents.config(engine, _served(engine, request)))

        @route("GET", f"{place}/stats", f"{what}_statistics")
        async def model_statistics(request: Request) -> Response:
            """What was asked of a model since the server started."""
            return _json(documents.statistics(engine, [_served(engine, request)]))

        @route("POST", f"{place}/infer", f"{what}_infer", **openapi.inference_request())
        async def infer(request: Request) -> Response:
            """Segment the photos of a tensor."""
            return await _infer(turns, engine, _served(engine, request), request)

    @route("POST", "/repository/index", "repository_index")
    async def repository_index(request: Request) -> Response:
        """The models there are; with `{"ready": true}` those in service."""
        asked = await _asked(request)
        return _json(documents.index(engine, ready=asked.get("ready") is True))

    @route("POST", "/repository/models/{name}/load", "repository_load")
    async def load(request: Request) -> Response:
        """Take a model into service, if PPOOL_MODEL_CONTROL allows it."""
        given = (await _asked(request)).get("parameters") or {}
        await control.load(engine, request.path_params["name"], given)
        return _json({})

    @route("POST", "/repository/models/{name}/unload", "repository_unload")
    async def unload(request: Request) -> Response:
        """End the service of a model, if PPOOL_MODEL_CONTROL allows it."""
        await _asked(request)
        await control.unload(engine, request.path_params["name"])
        return _json({})


def _served(engine: Engine, request: Request) -> Served:
    """The model that the path names."""
    served = engine.served(request.path_params["name"])
    if request.path_params.get("version", VERSION) != VERSION:
        raise BadRequest(f"Every model has the one version {VERSION!r}.")
    return served


async def _asked(request: Request) -> dict[str, Any]:
    """The JSON object that a request for other things than masks may have as its body."""
    body = await read_body(request, _DOCUMENT_BYTES, lambda _: None)
    try:
        given = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise BadRequest("Send a JSON object, or nothing.")
    return given


async def _infer(turns: Turns, engine: Engine, served: Served, request: Request) -> Response:
    most = engine.settings.max_images
    if _OUTPUTS not in sys.modules:  # it takes longer than others should wait
        await asyncio.to_thread(import_module, _OUTPUTS)
    from ppool.service.http.outputs import order, rendered

    async def read(hold: Hold) -> Order[Response]:
        body = await read_body(request, engine.settings.max_body_bytes, hold)
        inference = await turns.take(parsed(body, request.headers.get(HEADER_LENGTH), most))

        async def write(outputs: list[Tensor]) -> Response:
            about = {"model_name": served.model.name, "model_version": VERSION}
            pieces, length = await turns.take(rendered(inference, about, outputs))
            headers = {"Vary": "Accept-Encoding"}
            if length is not None:
                headers[HEADER_LENGTH] = str(length)
            if coding := _coding(request, pieces):
                headers["Content-Encoding"] = coding
                pieces = await asyncio.to_thread(deflated, pieces, coding)
            binary = "json" if length is None else "octet-stream"
            return Pieces(pieces, headers=headers, media_type=f"application/{binary}")

        return await order(turns, inference, served, most, write)

    return await exchange(engine, request, served, read)


def _coding(request: Request, pieces: Sequence[bytes | memoryview]) -> str | None:
    """How to compress an answer, if the client takes that and it is worth it."""
    accepted = request.headers.get("accept-encoding", "")
    if not accepted or sum(map(len, pieces)) < _LEAST_BYTES:
        return None
    return choose(accepted, CODINGS)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
