"""The pages for people: the playground, and the API page; neither loads anything from outside."""

from __future__ import annotations

from importlib.resources import files
from os import PathLike, stat_result

from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["ASSETS", "PLAYGROUND", "api_files", "api_page", "playground", "playground_files"]

ASSETS = "/docs-assets"

PLAYGROUND = "/playground"

_STRICT = {
    # Masks and photos are shown from data: and blob: addresses made in the page.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # A page and scripts of two versions would not fit together; unchanged files are a 304.
    "Cache-Control": "no-cache",
}

# Swagger UI styles its elements one by one.
_API = _STRICT | {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
}

_PLAYGROUND_HTML = files("ppool.service").joinpath("playground/index.html").read_text("utf-8")
_API_HTML = files("ppool.service.http").joinpath("swagger/index.html").read_text("utf-8")


def playground() -> HTMLResponse:
    """``GET /``."""
    return HTMLResponse(_PLAYGROUND_HTML, headers=_STRICT)


def playground_files() -> StaticFiles:
    """What the playground is made of, to be mounted at :data:`PLAYGROUND`."""
    return _StrictFiles(packages=[("ppool.service", "playground")])


def api_page() -> HTMLResponse:
    """``GET /docs``: Swagger UI; FastAPI's own page would fetch it from an outside host."""
    return HTMLResponse(_API_HTML, headers=_API)


def api_files() -> StaticFiles:
    """What the API page is made of, to be mounted at :data:`ASSETS`."""
    return _StrictFiles(packages=[("ppool.service.http", "swagger")])


class _StrictFiles(StaticFiles):
    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_STRICT)
        return response
