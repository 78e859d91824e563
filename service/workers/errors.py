"""What goes wrong in a worker, in neutral words; all of it can be sent to the server.

InferenceError
├── DeviceFull        no memory on the device for even one image
└── InferenceFailed   unforeseen; the traceback is in the worker's log
WorkerLost            the process died with a message unanswered
WorkerFailed          the process lives but could not do it
"""

# ruff: noqa: N818 - these are outcomes

from __future__ import annotations

__all__ = [
    "DeviceFull",
    "InferenceError",
    "InferenceFailed",
    "WorkerFailed",
    "WorkerLost",
]


class InferenceError(Exception):
    """One photo that could not be segmented."""


class DeviceFull(InferenceError):
    """The device has no memory for even one image; later it may have."""


class InferenceFailed(InferenceError):
    """Unforeseen; the traceback is in the log."""


class WorkerLost(Exception):
    """The worker died with this message unanswered."""


class WorkerFailed(Exception):
    """The worker lives but could not do it; ``expected`` if the text is for people, not the log."""

    def __init__(self, text: str, *, expected: bool) -> None:
        super().__init__(text)
        self.expected = expected
