"""Why an image is not run: neutral words, which whoever asked puts into its own.

SchedulingError
├── Refused    not accepted; when the same might be
├── TooLate    its deadline passed while it waited
├── Replaced   its worker died, and meanwhile its model was replaced
└── Abandoned  given up; the reason is in the log
"""

# ruff: noqa: N818 - these are outcomes, as in queue.Full

from __future__ import annotations

from typing import Literal

__all__ = ["Abandoned", "Refused", "Replaced", "SchedulingError", "TooLate"]


class SchedulingError(Exception):
    """An image that is not run to its end."""


class Refused(SchedulingError):
    """Not accepted, to keep the promises made to those that were.

    ``retry_seconds`` is when the same might be.
    """

    def __init__(
        self, reason: Literal["requests", "queue", "bytes", "deadline"], retry_seconds: float
    ) -> None:
        super().__init__(reason, retry_seconds)
        self.reason = reason
        self.retry_seconds = retry_seconds


class TooLate(SchedulingError):
    """The deadline passed in the queue."""


class Replaced(SchedulingError):
    """The worker died, and the model was replaced meanwhile; the same works if sent again."""


class Abandoned(SchedulingError):
    """Given up; the reason is in the log."""
