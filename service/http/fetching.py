"""Photos of Label Studio's tasks: in the task itself, or fetched from where the settings allow."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from ppool.service.http.errors import BadRequest, DeadlinePassed, TooLarge

__all__ = ["Photos"]

_SECONDS = 20.0
_STEP_BYTES = 256 * 1024
# An access token lasts five minutes.
_TOKEN_SECONDS = 240.0
_SHOWN = 80


class Photos:
    """Gets photos, on a thread that may wait.

    Args:
        host: Address of Label Studio; what tasks have as a path is there.
        key: To show there, and nowhere else: a legacy token, or a personal one.
        origins: Others to fetch from.
        most_bytes: Of a photo.
    """

    def __init__(self, host: str, key: str | None, origins: Sequence[str], most_bytes: int) -> None:
        self._host = host.rstrip("/") + "/"
        self._key = key
        self._origins = {_origin(host), *map(_origin, origins)}
        self._most_bytes = most_bytes
        self._token = ("", 0.0)

    def get(self, place: str) -> bytes:
        """The file that a task has: a data URI, base64, an address or a path of Label Studio.

        Raises:
            BadRequest: if there is none, or it may not be fetched.
            TooLarge: if it is larger than allowed.
            DeadlinePassed: if it does not come in time.
        """
        if place.startswith("data:"):
            head, _, text = place.partition(",")
            if not head.endswith(";base64"):
                raise BadRequest("Send a data URI as base64.")
            return _decoded(text)
        path = place.startswith("/") and not place.startswith(("/9j/", "//"))  # a JPEG as base64
        if not path and not urlsplit(place[:_SHOWN]).scheme:
            return _decoded(place)
        address = urljoin(self._host, place.lstrip("/")) if path else place
        if _origin(address) not in self._origins:
            raise BadRequest(
                f"Photos are not fetched from {_origin(address)[:_SHOWN]!r}; the settings "
                "PPOOL_LABEL_STUDIO_URL and PPOOL_LABEL_STUDIO_ORIGINS say from where."
            )
        return self._fetched(Request(address, headers=self._headers(address)))  # noqa: S310

    def _headers(self, address: str) -> dict[str, str]:
        if self._key is None or _origin(address) != _origin(self._host):
            return {}
        if self._key.count(".") != 2:
            return {"Authorization": f"Token {self._key}"}
        token, until = self._token
        if time.monotonic() > until:
            # Personal tokens of Label Studio 1.17 and later are JSON Web Tokens for this alone.
            request = Request(  # noqa: S310 - the settings have it
                urljoin(self._host, "api/token/refresh"),
                json.dumps({"refresh": self._key}).encode(),
                {"Content-Type": "application/json"},
            )
            try:
                token = json.loads(self._fetched(request))["access"]
            except (ValueError, KeyError, TypeError) as error:
                raise BadRequest("Label Studio gave no access token; check its address.") from error
            self._token = token, time.monotonic() + _TOKEN_SECONDS
        return {"Authorization": f"Bearer {token}"}

    def _fetched(self, request: Request) -> bytes:
        end = time.monotonic() + _SECONDS
        content = bytearray()
        try:
            with _opener(self._origins).open(request, timeout=_SECONDS) as answer:
                while piece := answer.read(_STEP_BYTES):
                    content += piece
                    if len(content) > self._most_bytes:
                        raise TooLarge(f"A photo may have at most {self._most_bytes} bytes.")
                    if time.monotonic() > end:
                        raise TimeoutError
        except HTTPError as error:
            with error:
                raise BadRequest(
                    f"{_origin(request.full_url)} answered {error.code} for a photo; check "
                    "PPOOL_LABEL_STUDIO_KEY and the task."
                ) from error
        except TimeoutError as error:
            raise DeadlinePassed("receive") from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            if isinstance(error, URLError) and isinstance(error.reason, TimeoutError):
                raise DeadlinePassed("receive") from error
            raise BadRequest(
                f"{_origin(request.full_url)} could not be asked for a photo; check the address."
            ) from error
        return bytes(content)


class _Redirects(HTTPRedirectHandler):
    """Follows only to where may be asked, without the key elsewhere."""

    def __init__(self, origins: set[str]) -> None:
        self._origins = origins

    def redirect_request(self, *given: Any) -> Request | None:
        """The request to go on with."""
        before, answer, *_, newurl = given
        if _origin(newurl) not in self._origins:
            answer.close()
            raise BadRequest(
                f"A photo is kept at {_origin(newurl)[:_SHOWN]!r}, which the setting "
                "PPOOL_LABEL_STUDIO_ORIGINS does not name."
            )
        request = super().redirect_request(*given)
        if request is not None and _origin(newurl) != _origin(before.full_url):
            request.remove_header("Authorization")
        return request


def _opener(origins: set[str]) -> OpenerDirector:
    return build_opener(_Redirects(origins))


def _origin(address: str) -> str:
    """Scheme, host and port."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise BadRequest("The address of a photo is none.") from error
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(
            "Give a photo as an address, a path of Label Studio, a data URI or base64."
        ) from error
