"""The Open Inference Protocol, version 2, with its binary tensor extension: ``/v2``.

One input, ``image``: UINT8 [N, H, W, 3], RGB, or BYTES [N], photo files (base64 in JSON). Outputs:
``mask``, UINT8 [N, H, W] at the photos' own size, and on request the alpha map of each pooling
stage, FP32 [N, C, h, w]. The parameter ``page`` names a page of each file.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from ppool.service.answers import Alpha, Answer, Encoded
from ppool.service.engine import Engine
from ppool.service.http import openapi
from ppool.service.http.bodies import read_body
from ppool.service.http.errors import BadRequest
from ppool.service.http.exchange import Hold, Order, exchange
from ppool.service.http.tensors import INPUT, parsed, photos, rendered
from ppool.service.http.turns import Turns
from ppool.service.models import Served

__all__ = ["add_open_inference"]

HEADER_LENGTH = "Inference-Header-Content-Length"
VERSION = "1"


def add_open_inference(app: FastAPI, engine: Engine) -> None:
    """Serve the protocol on ``engine``, beside the service's own API."""
    turns = Turns()

    def route(
        method: str, path: str, name: str
    ) -> Callable[[Callable[..., Awaitable[Response]]], Any]:
        return app.api_route(
            f"/v2{path}",
            methods=[method],
            operation_id=f"v2_{name}",
            tags=["open inference protocol"],
            response_class=Response,
            openapi_extra={
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in re.findall(r"{(\w+)}", path)
                ]
            },
            responses=openapi.INFERENCE_ERROR,
        )

    @route("GET", "", "server")
    async def server() -> Response:
        """Name, version and extensions of the server."""
        about = {"name": "ppool", "version": version("ppool")}
        return _json(about | {"extensions": ["binary_tensor_data"]})

    @route("GET", "/health/live", "live")
    async def live() -> Response:
        """Whether the process answers at all."""
        return _json({"live": engine.alive}, 200 if engine.alive else 503)

    @route("GET", "/health/ready", "ready")
    async def ready() -> Response:
        """Whether requests are welcome."""
        return _json({"ready": engine.ready()}, 200 if engine.ready() else 503)

    places = {"model": "/models/{name}", "version": "/models/{name}/versions/{version}"}
    for what, place in places.items():

        @route("GET", place, what)
        async def model(request: Request) -> Response:
            """Inputs and outputs of a model."""
            return await _of_model(request, _metadata)

        @route("GET", f"{place}/ready", f"{what}_ready")
        async def model_ready(request: Request) -> Response:
            """Whether a model takes requests."""
            return await _of_model(request, _readiness)

        @route("POST", f"{place}/infer", f"{what}_infer")
        async def infer(request: Request) -> Response:
            """Segment the photos of a tensor."""
            return await _of_model(request, partial(_infer, turns))

    async def _of_model(
        request: Request, work: Callable[[Engine, Served, Request], Awaitable[Response]]
    ) -> Response:
        served = engine.served(request.path_params["name"])
        if request.path_params.get("version", VERSION) != VERSION:
            raise BadRequest(f"Every model has the one version {VERSION!r}.")
        return await work(engine, served, request)


async def _metadata(_: Engine, served: Served, __: Request) -> Response:
    about = served.model
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


async def _infer(turns: Turns, engine: Engine, served: Served, request: Request) -> Response:
    most = engine.settings.max_images

    async def read(hold: Hold) -> Order:
        body = await read_body(request, engine.settings.max_body_bytes, hold)
        inference = await turns.take(parsed(body, request.headers.get(HEADER_LENGTH), most))
        uploads = await turns.take(photos(inference, most))
        stages = [stage.output for stage in served.model.stages]
        wanted = inference.outputs(["mask", *stages])
        alpha: Alpha = "full" if set(stages).intersection(wanted) else "none"

        async def render(parts: list[Encoded]) -> Response:
            outputs = {name: [part.files[name] for part in parts] for name in wanted}
            about = {"model_name": served.model.name, "model_version": VERSION}
            pieces, length = await turns.take(rendered(inference, about, outputs))
            if length is None:
                return Pieces(pieces, media_type="application/json")
            headers = {HEADER_LENGTH: str(length)}
            return Pieces(pieces, headers=headers, media_type="application/octet-stream")

        answer = Answer(("tensors",), alpha, page=inference.page)
        return Order(uploads, answer, render, served)

    return await exchange(engine, request, served, read)


class Pieces(Response):
    """An answer that is never put together: all at once it would hold up everyone else."""

    def __init__(self, pieces: Sequence[bytes | memoryview], **options: Any) -> None:
        super().__init__(**options)
        self._pieces = pieces
        self.headers["Content-Length"] = str(sum(map(len, pieces)))

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
