"""A client of the service, sync and async: photos to masks as arrays, waiting when told to.

Needs NumPy and httpx, which the extra ``client`` installs.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

__all__ = ["AsyncClient", "Client", "Problem", "Segmentation"]

DEFAULT_URL = "http://127.0.0.1:8000"

# Where the answer has no Retry-After, as that of an ingress in between may not.
_PAUSE_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.1
_BUSY = frozenset({429, 503})

Photo = bytes | str | Path


@dataclass(frozen=True)
class Segmentation:
    """The answer for one photo.

    Attributes:
        mask: Class ids, uint8 [H, W], at the photo's upright size.
        alpha: Pooling exponents by stage, float16 [C, h, w]; empty unless asked for.
        model: The model that answered.
        request_id: For the operator of the service.
    """

    mask: NDArray[np.uint8]
    alpha: Mapping[str, NDArray[np.float16]]
    model: str
    request_id: str


class Problem(Exception):  # noqa: N818 - the name RFC 9457 gives it
    """The service refused; the message says what to do.

    Attributes:
        status: HTTP status code.
        type: Stable identifier, such as ``urn:ppool:problem:corrupt-image``.
        request_id: For the operator of the service.
    """

    def __init__(self, response: httpx.Response) -> None:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):  # not from the service: an ingress, perhaps
            document = {}
        detail = document.get("detail") or f"status {response.status_code} from {response.url}"
        super().__init__(detail)
        self.status = response.status_code
        self.type = str(document.get("type", "about:blank"))
        self.request_id = response.headers.get("x-request-id", "")


def _question(
    photo: Photo, model: str | None, mode: Literal["resize", "tile"], *, alpha: bool
) -> dict[str, Any]:
    """The request for one photo; a string is a path."""
    query = {"mode": mode, "alpha": "full" if alpha else "none"}
    return {
        "method": "POST",
        "url": "/segment",
        "params": query | ({"model": model} if model else {}),
        "content": photo if isinstance(photo, bytes) else Path(photo).read_bytes(),
        "headers": {"Accept": "application/x-npz"},
    }


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise Problem(response)
    return response


def _segmentation(response: httpx.Response) -> Segmentation:
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        alpha = {
            name.removeprefix("alpha/"): arrays[name] for name in arrays.files if name != "mask"
        }
        return Segmentation(
            arrays["mask"],
            alpha,
            response.headers.get("x-model", ""),
            response.headers.get("x-request-id", ""),
        )


def _options(url: str, api_key: str | None, timeout_seconds: float) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_seconds}


def _pause(response: httpx.Response, until: float) -> float | None:
    """Seconds to wait before asking again; ``None`` where the answer stands."""
    if response.status_code not in _BUSY:
        return None
    text = response.headers.get("retry-after", "")
    pause = max(float(text), _SHORTEST_PAUSE_SECONDS) if text.isdecimal() else _PAUSE_SECONDS
    return pause if time.monotonic() + pause <= until else None


class Client:
    """Speaks to a service.

    While the service is busy (429, 503) it waits as long as ``Retry-After`` says and asks again.

    Example::

        with Client("http://127.0.0.1:8000") as client:
            mask = client.segment("page.jpg").mask

    Args:
        url: Of the service.
        api_key: Sent as a bearer token.
        patience_seconds: How long to wait for a busy service in all; 0 raises at once.
        timeout_seconds: For each request.
        transport: Of httpx, for proxies and tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        patience_seconds: float = 60.0,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience_seconds = patience_seconds
        options = _options(url, api_key, timeout_seconds)
        self._http = httpx.Client(transport=transport, **options)

    def segment(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
        alpha: bool = False,
    ) -> Segmentation:
        """Segment a photo.

        Args:
            photo: The file's path, or its content as bytes.
            model: Name of a model; ``None`` is the service's first.
            mode: What becomes of a photo larger than the model's input.
            alpha: Whether to get the alpha maps too; not with ``mode="tile"``.

        Raises:
            Problem: if the service refuses, or stays busy longer than ``patience_seconds``.
            httpx.TransportError: if it cannot be reached.
        """
        return _segmentation(self._send(_question(photo, model, mode, alpha=alpha)))

    def models(self) -> list[dict[str, Any]]:
        """What is loaded: names, classes, colours, pooling stages, as ``GET /models`` has it."""
        models: list[dict[str, Any]] = self._send({"method": "GET", "url": "/models"}).json()
        return models

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, question: dict[str, Any]) -> httpx.Response:
        until = time.monotonic() + self._patience_seconds
        while (pause := _pause(response := self._http.request(**question), until)) is not None:
            time.sleep(pause)
        return _checked(response)


class AsyncClient:
    """As :class:`Client`, for asyncio: ``async with AsyncClient() as client``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        patience_seconds: float = 60.0,
        timeout_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience_seconds = patience_seconds
        options = _options(url, api_key, timeout_seconds)
        self._http = httpx.AsyncClient(transport=transport, **options)

    async def segment(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
        alpha: bool = False,
    ) -> Segmentation:
        """As :meth:`Client.segment`."""
        return _segmentation(await self._send(_question(photo, model, mode, alpha=alpha)))

    async def models(self) -> list[dict[str, Any]]:
        """As :meth:`Client.models`."""
        response = await self._send({"method": "GET", "url": "/models"})
        models: list[dict[str, Any]] = response.json()
        return models

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, question: dict[str, Any]) -> httpx.Response:
        until = time.monotonic() + self._patience_seconds
        while (
            pause := _pause(response := await self._http.request(**question), until)
        ) is not None:
            await asyncio.sleep(pause)
        return _checked(response)
