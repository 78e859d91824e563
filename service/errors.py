"""Why a photo has no mask: neutral words of every room, which whoever asked puts into its own.

Fault
├── NotWarm               no model can be used yet
├── UnknownModel          none of that name is loaded
├── CodecError            the photo is to blame; the message is a sentence that says what to do
│   ├── TooLarge          over a limit in pixels, sides or frames
│   ├── UnsupportedImage  sound, perhaps, but of no type or variant that is decoded
│   ├── CorruptImage      cut off or damaged
│   ├── NoSuchPage        fewer pages than asked for
│   ├── TooDetailed       of more regions than polygons can be
│   ├── CannotTile        the network cannot see a photo in windows
│   └── CannotTell        the network does not tell what is asked
├── Refused               not accepted, to keep the promises made to those that were
├── TooLate               the deadline passed in the queue
├── Replaced              its worker died, and meanwhile its model was replaced
├── Abandoned             given up; the reason is in the log
├── DeviceFull            no memory on the device for even one image; later there may be
└── InferenceFailed       unforeseen; the traceback is in the worker's log
WorkerLost                the process died with a message unanswered
WorkerFailed              the process lives but could not do it
"""

# ruff: noqa: N818 - these are outcomes, as in queue.Full

from __future__ import annotations

from typing import Literal

__all__ = [
    "Abandoned",
    "CannotTell",
    "CannotTile",
    "CodecError",
    "CorruptImage",
    "DeviceFull",
    "Fault",
    "InferenceFailed",
    "NoSuchPage",
    "NotWarm",
    "Refused",
    "Replaced",
    "TooDetailed",
    "TooLarge",
    "TooLate",
    "UnknownModel",
    "UnsupportedImage",
    "WorkerFailed",
    "WorkerLost",
]


class Fault(Exception):
    """A photo that gets no mask; workers can send every one."""


class NotWarm(Fault):
    """No model can be used yet."""


class UnknownModel(Fault):
    """No model of that name is loaded."""


class CodecError(Fault):
    """A photo that cannot be segmented; the message is a sentence that says what to do."""


class TooLarge(CodecError):
    """Over a limit in pixels, sides or frames."""


class UnsupportedImage(CodecError):
    """Sound, perhaps, but of no type or variant that is decoded."""


class CorruptImage(CodecError):
    """Cut off or damaged."""


class NoSuchPage(CodecError):
    """The file has fewer pages than asked for."""


class TooDetailed(CodecError):
    """What was found has more regions than anyone can use as polygons."""


class CannotTile(CodecError):
    """The network cannot see a photo in windows."""


class CannotTell(CodecError):
    """The network does not tell what is asked, such as probabilities."""


class Refused(Fault):
    """Not accepted, to keep the promises made to those that were.

    ``retry_seconds`` is when the same might be.
    """

    def __init__(
        self, reason: Literal["requests", "queue", "bytes", "deadline"], retry_seconds: float
    ) -> None:
        super().__init__(reason, retry_seconds)
        self.reason = reason
        self.retry_seconds = retry_seconds


class TooLate(Fault):
    """The deadline passed in the queue."""


class Replaced(Fault):
    """The worker died, and the model was replaced meanwhile; the same works if sent again."""


class Abandoned(Fault):
    """Given up; the reason is in the log."""


class DeviceFull(Fault):
    """The device has no memory for even one image; later it may have."""


class InferenceFailed(Fault):
    """Unforeseen; the traceback is in the log."""


class WorkerLost(Exception):
    """The worker died with this message unanswered."""


class WorkerFailed(Exception):
    """The worker lives but could not do it; ``expected`` if the text is for people, not the log."""

    def __init__(self, text: str, *, expected: bool) -> None:
        super().__init__(text)
        self.expected = expected
