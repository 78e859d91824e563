"""Around every call: its id, its key, its count, and a status even when a handler breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from starlette.datastructures import Headers

from ppool.service.engine import Engine
from ppool.service.http.access import Access
from ppool.service.http.accounts import Accounts
from ppool.service.http.errors import (
    KNOWN,
    ClientGone,
    ServiceError,
    Unauthorized,
    problem,
)
from ppool.service.logs import begin_request
from ppool.service.rpc.messages import status_details
from ppool.service.tracing import Asked, Record

__all__ = ["Calls"]

# By the status of HTTP, which says the same in other words.
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_logger = logging.getLogger("ppool.service")


class Calls:
    """What all calls go through.

    Args:
        engine: Whose settings these are.
        record: Takes the spans.
    """

    def __init__(self, engine: Engine, record: Record | None) -> None:
        self._access = Access(engine.settings.api_keys)
        self._accounts = Accounts(engine, record)

    @asynccontextmanager
    async def answering(
        self, path: str, context: Any, *, masks: bool = False, public: bool = False
    ) -> AsyncIterator[tuple[Asked, dict[str, str]]]:
        """Answer a call inside of this; what is raised there becomes its status.

        Args:
            path: Of the method.
            context: Of the call.
            masks: Whether it is one for masks.
            public: Whether it needs no key.

        Yields:
            What is known of it, and what to tell behind the answer.
        """
        headers = _headers(context)
        asked = Asked("GRPC", path, headers)
        trailers = {"x-request-id": begin_request(headers.get("x-request-id"))}
        start, status = time.monotonic(), 200
        try:
            if not (public or self._access.allowed(path, headers)):
                raise Unauthorized
            yield asked, trailers
            context.set_trailing_metadata(tuple(trailers.items()))
        except asyncio.CancelledError:
            asked.reason, status = ClientGone.reason(), ClientGone.status
            raise
        except Exception as error:
            if not isinstance(error, KNOWN):
                _logger.exception("request %s failed", trailers["x-request-id"])
            found = problem(error)
            asked.reason, status = found.reason(), found.status
            await _abort(context, found, trailers)
        finally:
            self._accounts.close(asked, status, time.monotonic() - start, masks=masks)


def _headers(context: Any) -> Headers:
    """The metadata of a call as headers; what is binary is none of ours."""
    pairs = ((key, value) for key, value in context.invocation_metadata() or ())
    return Headers(
        raw=[
            (key.encode("latin-1"), value.encode("latin-1"))
            for key, value in pairs
            if isinstance(value, str)
        ]
    )


async def _abort(context: Any, error: ServiceError, trailers: dict[str, str]) -> None:
    code = _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT)
    retry = error.members.get("retry_after_seconds")
    if retry is not None:  # what clients with a retry policy obey (gRFC A6)
        trailers = trailers | {"grpc-retry-pushback-ms": str(retry * 1000)}
    about = {name: str(value) for name, value in error.members.items()}
    details = status_details(code.value[0], error.detail, error.reason(), retry, about)
    metadata = (*trailers.items(), ("grpc-status-details-bin", details))
    await context.abort(code, error.detail, metadata)
