"""What passes between the server and its workers, and how it is framed on the socket."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any

from ppool.service.codecs.answers import Answer
from ppool.service.codecs.header import ImageLimits
from ppool.service.workers.snapshot import ModelFile

__all__ = [
    "HEADER",
    "Cancel",
    "Drop",
    "Failure",
    "Load",
    "Ping",
    "Probe",
    "Run",
    "Task",
    "Verify",
    "frame",
    "parse",
]

# Bytes that follow, as an unsigned 64-bit number. Both ends are this program on this machine.
HEADER = struct.Struct("=Q")


@dataclass(frozen=True)
class Task:
    """One photo file and the answer wanted."""

    name: str
    data: bytes
    answer: Answer


@dataclass(frozen=True)
class Load:
    """Load ``file`` under the number ``handle``; the reply is a ``Model``.

    ``name`` is what the model is called, ``None`` for its own name. Photos beyond ``limits`` are
    refused.
    """

    handle: int
    file: ModelFile
    name: str | None
    threads: int
    limits: ImageLimits


@dataclass(frozen=True)
class Drop:
    """Forget a model."""

    handle: int


@dataclass(frozen=True)
class Run:
    """Segment ``tasks`` as one batch; the reply has an ``Encoded`` or an error for each."""

    handle: int
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Ping:
    """Say that you are there."""


@dataclass(frozen=True)
class Cancel:
    """Stop the batch of the message ``number`` where it can be stopped: nobody waits for it."""

    number: int


@dataclass(frozen=True)
class Verify:
    """Run one image of ``height`` x ``width``, and compare the outputs with the description."""

    handle: int
    height: int
    width: int


@dataclass(frozen=True)
class Probe:
    """Run ``batch`` grey images of ``height`` x ``width`` for ``seconds``, and at least once.

    The reply is the seconds of the fastest batch and how many ran a second.
    """

    handle: int
    height: int
    width: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """The reply to what could not be done; ``expected`` if the text is for people, not the log."""

    text: str
    expected: bool


def frame(number: int, message: object) -> bytes:
    """The bytes of a message: its length, then its number and content."""
    content = pickle.dumps((number, message), protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(content)) + content


def parse(content: bytes | bytearray | memoryview) -> tuple[int, Any]:
    """The number and the content of a message, from what follows its header."""
    number, message = pickle.loads(content)  # noqa: S301 - from our own child, over a socket pair
    return number, message
