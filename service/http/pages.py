"""The pages for people: the playground, and the API page; neither loads anything from outside."""

from __future__ import annotations

from importlib.resources import files
from os import PathLike, stat_result

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["ASSETS", "ASSETS_PACKAGE", "PLAYGROUND", "api_page", "playground", "playground_files"]

# The package carries Swagger UI's files; FastAPI's own page would fetch them from a CDN.
ASSETS_PACKAGE = ("fastapi_offline", "static")
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

# Swagger UI's page starts it with an inline script.
_NOTHING_FROM_OUTSIDE = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'"
}

_PLAYGROUND_HTML = files("ppool.service").joinpath("playground/index.html").read_text("utf-8")


def playground() -> HTMLResponse:
    """``GET /``."""
    return HTMLResponse(_PLAYGROUND_HTML, headers=_STRICT)


def playground_files() -> StaticFiles:
    """What the playground is made of, to be mounted at :data:`PLAYGROUND`."""
    return _StrictFiles(packages=[("ppool.service", "playground")])


def api_page() -> HTMLResponse:
    """``GET /docs``."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="ppool API",
        swagger_js_url=f"{ASSETS[1:]}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS[1:]}/swagger-ui.css",
        swagger_favicon_url="data:,",
        # Swagger UI would otherwise send the document to its makers' validator.
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers.update(_NOTHING_FROM_OUTSIDE)
    return page


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
