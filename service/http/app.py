"""The web application: routes, probes, pages and the form of every error."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp

from ppool.service.engine import Engine
from ppool.service.errors import UnknownModel
from ppool.service.http import access, openapi, pages
from ppool.service.http.errors import KNOWN, problem
from ppool.service.http.middleware import Envelope, answer_error, error_response
from ppool.service.http.openinference import add_open_inference
from ppool.service.http.schemas import Health
from ppool.service.http.segment import add_segment
from ppool.service.metrics import Metrics
from ppool.service.settings import Settings
from ppool.service.tracing import Record, recorder
from ppool.service.workers.launch import Launch, launch_process

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["Beside", "create_app"]

_logger = logging.getLogger("ppool.service")

# What a proxy may have taken off the path, as Traefik says it.
_PREFIX = re.compile(r"(/[\w.~-]+)+/?")


class Beside(Protocol):
    """Another protocol in the same process."""

    def serving(self, engine: Engine, record: Record | None) -> AbstractAsyncContextManager[None]:
        """Answer requests inside of this, and finish them at its end.

        Raises:
            ValueError: if that cannot be; the message says why.
        """

    def stop(self) -> object:
        """Begin to finish."""


class Json(Response):
    """A JSON answer by orjson, which knows dataclasses."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of ``content``."""
        return orjson.dumps(content)


def create_app(
    settings: Settings,
    *,
    launch: Launch = launch_process,
    failed: Callable[[str], None] = lambda _: None,
    tracing: TracerProvider | None = None,
    beside: Beside | None = None,
) -> FastAPI:
    """The application; its lifespan starts workers and models and, at the end, drains.

    The engine is ``app.state.engine``, so that the process can announce that it is draining.

    Args:
        settings: Of everything.
        launch: Starts a worker process.
        failed: Called with the reason when the models cannot be served.
        tracing: Takes the spans of OpenTelemetry.
        beside: Another protocol.
    """
    engine = Engine(settings, Metrics(), launch)
    record = recorder(tracing) if tracing is not None else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # In the background, so that the probes answer while the models warm up.
        starting = asyncio.create_task(_start(engine, failed))
        async with AsyncExitStack() as protocols:
            if beside is not None:
                try:
                    await protocols.enter_async_context(beside.serving(engine, record))
                except ValueError as error:
                    failed(str(error))
            yield
        # Cancelled where a signal came first: nothing has been accepted yet.
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        await engine.stop()

    app = openapi.DescribedApp(secured=bool(settings.api_keys), lifespan=lifespan)
    app.state.engine = engine
    direct: dict[str, ASGIApp] = {}
    app.add_middleware(Envelope, engine=engine, record=record, direct=direct)
    if settings.cors_origins:  # around it, so that refusals can be read too
        app.add_middleware(CORSMiddleware, **access.cors(settings.cors_origins))
    _add_error_forms(app)
    direct["/segment"] = add_segment(app, engine)
    add_open_inference(app, engine)
    if settings.label_studio_url is not None:
        # What fetches photos is imported by who wants it.
        from ppool.service.http.labelstudio import add_label_studio

        add_label_studio(app, engine, settings.label_studio_url)
    _add_operations(app, engine)
    _add_pages(app)
    return app


async def _start(engine: Engine, failed: Callable[[str], None]) -> None:
    try:
        await engine.start()
    except ValueError as error:
        failed(str(error))
        return
    except Exception:
        _logger.exception("start-up failed")
        failed("the service cannot start; the log says why")
        return
    for served in engine.registry.models.values():
        _logger.info("%s", engine.announce(served))
    # Since the program began: `logging` is among the first of what it imports.
    seconds = logging.makeLogRecord({}).relativeCreated / 1e3
    _logger.info("%s after %.2f s", engine.phase, seconds)


def _add_operations(app: FastAPI, engine: Engine) -> None:
    @app.get(
        "/livez",
        tags=["operations"],
        response_class=Response,
        responses=openapi.HEALTH_RESPONSES,
    )
    async def livez() -> Response:
        """Whether the process can be left running: not if no worker could be started for long."""
        return Json(Health("alive")) if engine.alive else Json(Health("no-worker"), 503)

    @app.get(
        "/readyz",
        tags=["operations"],
        response_class=Response,
        responses=openapi.HEALTH_RESPONSES,
    )
    async def readyz() -> Response:
        """Whether to send requests here: a live, warmed worker, and the service not draining."""
        return Json(Health(engine.status), 200 if engine.ready() else 503)

    @app.get(
        "/metrics",
        tags=["operations"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text."}},
    )
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(engine.metrics.render(), media_type=engine.metrics.content_type)

    @app.get(
        "/models",
        tags=["models"],
        response_class=Response,
        responses=openapi.MODELS_RESPONSES,
    )
    async def models() -> Response:
        """The loaded models; the first one answers unless another is asked for."""
        return Json([engine.describe(served) for served in engine.registry.models.values()])

    @app.get(
        "/models/{name}",
        tags=["models"],
        response_class=Response,
        responses=openapi.MODEL_RESPONSES,
        openapi_extra=openapi.in_path("name"),
    )
    async def model(request: Request) -> Response:
        """One loaded model: classes, colours, pooling stages, kernels, file digest."""
        return Json(engine.describe(engine.served(request.path_params["name"])))

    @app.get(
        "/models/{name}/card",
        tags=["models"],
        response_class=Response,
        responses=openapi.CARD_RESPONSES,
        openapi_extra=openapi.in_path("name"),
    )
    async def card(request: Request) -> Response:
        """What to know before trusting a model: its data, scores and limits, in Markdown."""
        model = engine.served(request.path_params["name"]).model
        if not model.card:
            raise UnknownModel(f"The file of model {model.name!r} has no card.")
        return Response(model.card, media_type="text/markdown")


def _add_pages(app: FastAPI) -> None:
    app.mount(pages.ASSETS, pages.api_files())
    app.mount(pages.PLAYGROUND, pages.playground_files())

    @app.get("/", include_in_schema=False)
    async def front() -> HTMLResponse:
        return pages.playground()

    @app.get("/openapi.json", include_in_schema=False)
    async def description(request: Request) -> Response:
        # On a thread, as making it takes longer than others should wait.
        document = await asyncio.to_thread(app.openapi)
        prefix = request.headers.get("x-forwarded-prefix", "") or request.scope["root_path"]
        servers = [{"url": prefix.rstrip("/")}] if _PREFIX.fullmatch(prefix) else None
        answer = Json(document | {"servers": servers} if servers else document)
        answer.headers["Vary"] = "X-Forwarded-Prefix"
        return answer

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return pages.api_page()


def _add_error_forms(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        return answer_error(request, problem(error))

    for kind in KNOWN:
        app.add_exception_handler(kind, known)

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> Response:
        """No such path, or no such method there."""
        request.state.reason = "http"
        document = {
            "type": "about:blank",
            "title": error.detail,
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path} is not served; the API is at /docs.",
        }
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return error_response(request.url.path, document, headers)
