"""Places for requests, held before anything of them is read, and the bytes of their bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from ppool.service.errors import Refused
from ppool.service.metrics import Metrics

__all__ = ["Admission"]


class Admission:
    """A bounded number of requests with a bounded number of bytes.

    Args:
        requests: Being answered at a time.
        body_bytes: Of all of them together.
        wait_seconds: How long an image that came now would wait.
        metrics: Shows how many there are, and how many were refused.
    """

    def __init__(
        self, requests: int, body_bytes: int, wait_seconds: Callable[[], float], metrics: Metrics
    ) -> None:
        self._requests, self._body_bytes = requests, body_bytes
        self._wait_seconds = wait_seconds
        self._metrics = metrics
        self._in_flight = self._held = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Until no request holds a place."""
        await self._idle.wait()

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """Hold a place for one request.

        Yields:
            What to call with the number of bytes whenever some of the body have come. They count
            until the end; it raises ``Refused`` when all requests together hold too many.

        Raises:
            Refused: if all places are taken.
        """
        own = 0

        def hold(size: int) -> None:
            nonlocal own
            own += size
            self._held += size
            # A lone body larger than the limit must still be served.
            if self._held > max(self._body_bytes, own):
                raise self._refusal("bytes")

        if self._in_flight >= self._requests:
            raise self._refusal("requests")
        self._in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.inc()
        try:
            yield hold
        finally:
            self._held -= own
            self._in_flight -= 1
            self._metrics.in_flight.dec()
            if not self._in_flight:
                self._idle.set()

    def _refusal(self, reason: Literal["requests", "bytes"]) -> Refused:
        self._metrics.refused.labels(reason).inc()
        return Refused(reason, self._wait_seconds())
