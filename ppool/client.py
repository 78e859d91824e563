"""A client of the service, sync and async: photos to masks as arrays, waiting when told to.

Needs NumPy and httpx, which the extra ``client`` installs.
"""

from __future__ import annotations

import asyncio
import io
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

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

S = TypeVar("S")
M = TypeVar("M")
B = TypeVar("B")
D = TypeVar("D")

Classes = str | Sequence[str]


@dataclass(frozen=True)
class Segmentation:
    """The answer for one photo.

    Attributes:
        mask: Class ids, uint8 [H, W], at the photo's upright size; uint16 of more than 256 classes.
        alpha: Pooling exponents by stage, float16 [C, h, w]; empty unless asked for.
        probability: From 0 to 1, float16 [H, W], by class; that of the mask's own class at each
            pixel under ``""``. Empty unless asked for.
        planes: Where each class is, uint8 [H, W], by class; empty unless asked for.
        model: The model that answered.
        request_id: For the operator of the service.
    """

    mask: NDArray[np.uint8] | NDArray[np.uint16]
    alpha: Mapping[str, NDArray[np.float16]]
    model: str
    request_id: str
    probability: Mapping[str, NDArray[np.float16]]
    planes: Mapping[str, NDArray[np.uint8]]


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


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise Problem(response)
    return response


def _segmentation(response: httpx.Response) -> Segmentation:
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        found: dict[str, dict[str, NDArray[Any]]] = {"alpha": {}, "probability": {}, "plane": {}}
        for name in arrays.files:
            kind, _, rest = name.partition("/")
            if kind in found:
                found[kind][rest] = arrays[name]
        return Segmentation(
            arrays["mask"],
            found["alpha"],
            response.headers.get("x-model", ""),
            response.headers.get("x-request-id", ""),
            found["probability"],
            found["plane"],
        )


def _named(**options: Classes | None) -> dict[str, str]:
    """Options that are classes, as a query has them."""
    return {
        name: classes if isinstance(classes, str) else ",".join(classes)
        for name, classes in options.items()
        if classes is not None
    }


def _question(
    photo: Photo, query: Mapping[str, str], model: str | None, accept: str
) -> dict[str, Any]:
    return {
        "method": "POST",
        "url": "/segment",
        "params": {**query, **({"model": model} if model else {})},
        "content": photo if isinstance(photo, bytes) else Path(photo).read_bytes(),
        "headers": {"Accept": accept},
    }


def _pause(response: httpx.Response, until: float) -> float | None:
    """Seconds to wait before asking again; ``None`` where the answer stands."""
    if response.status_code not in _BUSY:
        return None
    text = response.headers.get("retry-after", "")
    pause = max(float(text), _SHORTEST_PAUSE_SECONDS) if text.isdecimal() else _PAUSE_SECONDS
    return pause if time.monotonic() + pause <= until else None


class _Client(ABC, Generic[S, M, B, D]):
    """What both clients say; they wait in other ways, and return: ``S``, ``M``, ``B``, ``D``."""

    _connect: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        patience_seconds: float = 60.0,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience_seconds = patience_seconds
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = self._connect(
            base_url=url, headers=headers, timeout=timeout_seconds, transport=transport
        )

    def segment(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
        alpha: bool = False,
        page: int = 1,
        probability: Classes | None = None,
        planes: Classes | None = None,
        classes: Classes | None = None,
    ) -> S:
        """Segment a photo.

        Args:
            photo: The file's path, or its content as bytes.
            model: Name of a model; ``None`` is the service's first.
            mode: What becomes of a photo larger than the model's input.
            alpha: Whether to get the alpha maps too; not with ``mode="tile"``.
            page: Of a TIFF, or frame of an animation; the first is 1.
            probability: Classes, or ``"all"``, whose probability to get too; or ``"winner"``, that
                of the mask's own class at each pixel.
            planes: Classes, or ``"all"``, to get a plane each of: those of a multilabel model may
                overlap.
            classes: Those to leave in the mask; where others were it has the largest number of its
                type, 255 or 65535. ``None`` leaves all.

        Raises:
            Problem: if the service refuses, or stays busy longer than ``patience_seconds``.
            httpx.TransportError: if it cannot be reached.
        """
        query = {"mode": mode, "alpha": "full" if alpha else "none", "page": str(page)}
        query |= _named(probability=probability, planes=planes, classes=classes)
        question = _question(photo, query, model, "application/x-npz")
        answer: S = self._ask(question, _segmentation)
        return answer

    def cutout(
        self,
        photo: Photo,
        classes: Classes,
        *,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
        kind: Literal["png", "webp"] = "png",
    ) -> B:
        """The photo with nothing but some classes, as the bytes of an RGBA file.

        Args:
            photo: The file's path, or its content as bytes.
            classes: Those to keep, by name or id; each pixel is as opaque as it probably is of one.
            model: Name of a model; ``None`` is the service's first.
            mode: What becomes of a photo larger than the model's input.
            kind: Of file.

        Raises:
            Problem: if the service refuses, or stays busy longer than ``patience_seconds``.
            httpx.TransportError: if it cannot be reached.
        """
        query = {"mode": mode} | _named(cutout=classes)
        question = _question(photo, query, model, f"image/{kind}")
        answer: B = self._ask(question, lambda response: response.content)
        return answer

    def polygons(
        self,
        photo: Photo,
        *,
        classes: Classes | None = None,
        tolerance: float = 1.0,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
    ) -> D:
        """The regions of the mask as a GeoJSON feature collection, in pixels, y down.

        Args:
            photo: The file's path, or its content as bytes.
            classes: Of which classes; ``None`` for all but one called background.
            tolerance: How far in pixels an edge may be from that of the mask.
            model: Name of a model; ``None`` is the service's first.
            mode: What becomes of a photo larger than the model's input.

        Raises:
            Problem: if the service refuses, or stays busy longer than ``patience_seconds``.
            httpx.TransportError: if it cannot be reached.
        """
        query = {"mode": mode, "answers": "polygons", "tolerance": str(tolerance)}
        question = _question(photo, query | _named(classes=classes), model, "application/geo+json")
        answer: D = self._ask(question, httpx.Response.json)
        return answer

    def components(
        self,
        photo: Photo,
        *,
        classes: Classes | None = None,
        model: str | None = None,
        mode: Literal["resize", "tile"] = "resize",
    ) -> M:
        """What the regions of the mask measure, by class, from top to bottom.

        Args:
            photo: The file's path, or its content as bytes.
            classes: Of which classes; ``None`` for all but one called background.
            model: Name of a model; ``None`` is the service's first.
            mode: What becomes of a photo larger than the model's input.

        Returns:
            Of each region ``id`` and ``name`` of its class, ``area`` in pixels and ``bbox``: left,
            top, width and height in pixels.

        Raises:
            Problem: if the service refuses, or stays busy longer than ``patience_seconds``.
            httpx.TransportError: if it cannot be reached.
        """
        query = {"mode": mode, "answers": "components"} | _named(classes=classes)
        question = _question(photo, query, model, "application/json")
        answer: M = self._ask(question, lambda response: response.json()["images"][0]["components"])
        return answer

    def models(self) -> M:
        """What is loaded: names, classes, colours, pooling stages, as ``GET /models`` has it."""
        answer: M = self._ask({"method": "GET", "url": "/models"}, httpx.Response.json)
        return answer

    @abstractmethod
    def _ask(self, question: dict[str, Any], read: Callable[[httpx.Response], Any]) -> Any: ...


class Client(_Client[Segmentation, list[dict[str, Any]], bytes, dict[str, Any]]):
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

    _connect = httpx.Client

    def _ask(self, question: dict[str, Any], read: Callable[[httpx.Response], Any]) -> Any:
        until = time.monotonic() + self._patience_seconds
        while (pause := _pause(response := self._http.request(**question), until)) is not None:
            time.sleep(pause)
        return read(_checked(response))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(
    _Client[
        Awaitable[Segmentation],
        Awaitable[list[dict[str, Any]]],
        Awaitable[bytes],
        Awaitable[dict[str, Any]],
    ]
):
    """As :class:`Client`, for asyncio: ``async with AsyncClient() as client``."""

    _connect = httpx.AsyncClient

    async def _ask(self, question: dict[str, Any], read: Callable[[httpx.Response], Any]) -> Any:
        until = time.monotonic() + self._patience_seconds
        while (
            pause := _pause(response := await self._http.request(**question), until)
        ) is not None:
            await asyncio.sleep(pause)
        return read(_checked(response))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
