"""Who may ask: API keys, and what needs none."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr
from starlette.datastructures import Headers

__all__ = ["KEY_HEADER", "SCHEMES", "Access", "cors", "is_open"]

KEY_HEADER = "X-API-Key"

# Kubernetes and Prometheus ask these without a key. The pages are no secret, and ask for it.
_OPEN = {
    *("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
    *("/", "/docs", "/openapi.json"),
}
_OPEN_FOLDERS = ("/playground/", "/docs-assets/")

# As OpenAPI names them.
SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
}


def cors(origins: Sequence[str]) -> dict[str, Any]:
    """What pages of these origins may send and read, for Starlette's ``CORSMiddleware``."""
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": [
            *("Authorization", KEY_HEADER, "Content-Encoding"),
            *("X-Request-Id", "X-Request-Timeout-Ms", "Inference-Header-Content-Length"),
            *("traceparent", "tracestate"),
        ],
        "expose_headers": [
            *("X-Request-Id", "X-Model", "Server-Timing", "Retry-After", "Accept-Encoding"),
            *("Inference-Header-Content-Length", "WWW-Authenticate"),
        ],
    }


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN or path.startswith(_OPEN_FOLDERS)


class Access:
    """Tells who has a key; without any keys everybody may ask."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def allowed(self, path: str, headers: Headers) -> bool:
        """Whether to answer a request with these headers."""
        if not self._keys or is_open(path):
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = [token] if scheme.lower() == "bearer" else []
        if scheme.lower() == "basic":  # the password, which is all that Label Studio can send
            given.append(_password(token))
        given += headers.getlist(KEY_HEADER)
        # Every key is compared, and in constant time, so that timing tells nothing.
        matches = [
            hmac.compare_digest(text.strip().encode("latin-1"), key)
            for text in given[:2]
            for key in self._keys
        ]
        return any(matches)


def _password(token: str) -> str:
    """The second half of what HTTP's basic authentication sends (RFC 7617)."""
    try:
        return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""
