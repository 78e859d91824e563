"""What passes between the server and its workers, and how it is framed on the socket."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

from ppool.service.answers import Answer
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
    "read",
    "reading",
]

# Bytes of the message, and how many files follow it. Both ends are this program on this machine.
HEADER = struct.Struct("=QQ")


@dataclass(frozen=True)
class Task:
    """One photo file and the answer wanted."""

    name: str
    data: bytes
    answer: Answer

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.name, pickle.PickleBuffer(self.data), self.answer)


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


def frame(number: int, message: object) -> list[bytes]:
    """The bytes of a message in pieces, so that photos and masks go out from where they lie.

    First the header, the sizes of files and the message itself, then each file.
    """
    files: list[bytes] = []

    def apart(buffer: pickle.PickleBuffer) -> None:
        with buffer.raw() as raw:
            files.append(cast(bytes, raw.obj))

    content = pickle.dumps((number, message), pickle.HIGHEST_PROTOCOL, buffer_callback=apart)
    sizes = struct.pack(f"={len(files)}Q", *map(len, files))
    return [HEADER.pack(len(content), len(files)) + sizes + content, *files]


def reading() -> Generator[int, bytes, tuple[int, Any]]:
    """Reads a message: yields how many bytes to send it next; returns its number and content."""
    size, count = HEADER.unpack((yield HEADER.size))
    sizes = struct.unpack(f"={count}Q", (yield 8 * count)) if count else ()
    content = yield size
    files = []
    for length in sizes:
        files.append((yield length))
    number, message = pickle.loads(content, buffers=files)  # noqa: S301 - from our own child
    return number, message


def read(exactly: Callable[[int], bytes]) -> tuple[int, Any]:
    """The number and the content of the next message; ``exactly`` gives that many bytes."""
    steps = reading()
    wanted = next(steps)
    while True:
        try:
            wanted = steps.send(exactly(wanted) if wanted else b"")
        except StopIteration as done:
            message: tuple[int, Any] = done.value
            return message
