"""The two pages for people: the front page, and the API page, which loads nothing from outside."""

from __future__ import annotations

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

__all__ = ["ASSETS", "ASSETS_PACKAGE", "api_page", "front_page"]

# The package carries Swagger UI's files; FastAPI's own page would fetch them from a CDN.
ASSETS_PACKAGE = ("fastapi_offline", "static")
ASSETS = "/docs-assets"

_NOTHING_FROM_OUTSIDE = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'"
}

_FRONT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ppool</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto }
  pre { background: #8881; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px }
  :root { color-scheme: light dark }
</style>
<h1>ppool</h1>
<p>Segmentation that keeps fine details, by polynomial pooling. Send a photo, get a mask of the
same size:</p>
<pre>curl --data-binary @photo.jpg ORIGIN/segment -o mask.png</pre>
<p>or what is in it, as JSON:</p>
<pre>curl --data-binary @photo.jpg -H 'Accept: application/json' 'ORIGIN/segment?alpha=maps'</pre>
<ul>
  <li><a href="docs">the API, to try out</a> (<a href="openapi.json">OpenAPI</a>)</li>
  <li><a href="models">loaded models</a></li>
  <li><a href="metrics">metrics</a>, <a href="readyz">readiness</a></li>
</ul>
<script>
  for (const pre of document.querySelectorAll("pre"))
    pre.textContent = pre.textContent.replace("ORIGIN", location.origin);
</script>
</html>
"""


def front_page() -> HTMLResponse:
    """``GET /``."""
    return HTMLResponse(_FRONT, headers=_NOTHING_FROM_OUTSIDE)


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
