"""What is kept of every answered request, whichever protocol it came by."""

from __future__ import annotations

import logging

from ppool.service.engine import Engine
from ppool.service.tracing import Asked, Record

__all__ = ["Accounts"]

_logger = logging.getLogger("ppool.service")


class Accounts:
    """Counts requests, records their spans and logs them.

    Args:
        engine: Whose metrics and settings these are.
        record: Takes the spans.
    """

    def __init__(self, engine: Engine, record: Record | None) -> None:
        self._requests = engine.metrics.requests
        self._record = record
        self._log_requests = engine.settings.log_requests

    def close(self, asked: Asked, status: int, seconds: float, *, masks: bool) -> None:
        """Note an answer.

        Args:
            asked: The request.
            status: Of HTTP, also where another protocol has others, so that counts add up; 0 if
                none was sent.
            seconds: From the request's head to the answer's end.
            masks: Whether it was one for masks.
        """
        if status and masks:
            self._requests.labels(str(status), asked.reason).inc()
            if self._record is not None:
                self._record(asked, status, seconds)
        level = logging.INFO if self._log_requests else logging.DEBUG
        if level == logging.INFO or (status >= 400 and _logger.isEnabledFor(level)):
            fields = {
                "method": asked.method,
                "path": asked.path,
                "status": status,
                "reason": asked.reason,
                "seconds": round(seconds, 4),
            }
            _logger.log(level, "%s %s %d %s %.4f s", *fields.values(), extra={"fields": fields})
