"""A model file as it was when it was read: every worker, also a later one, loads the same bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["ModelFile", "Snapshot", "Stamp", "stamp"]

# Modification time in nanoseconds, size in bytes, inode.
Stamp = tuple[int, int, int]

_CHUNK_BYTES = 2**20
# Protocol buffers end there, and so does what anybody can put into the server's memory.
_MOST_BYTES = 2**31


@dataclass(frozen=True)
class ModelFile:
    """What a worker is told of a file: what people call it, where its bytes are, their SHA-256."""

    path: Path
    location: Path
    sha256: str


class Snapshot:
    """The bytes of a file, kept in memory until nobody refers to this object any more.

    Where the system has no anonymous files the file itself has to stay as it was.

    Args:
        path: A regular file; a FIFO or a device is refused, not waited for.

    Raises:
        OSError: if it cannot be read, or is not a regular file.
        ValueError: if it is larger than any ONNX file.

    Attributes:
        stamp: Of the file just before it was read.
        file: For workers, as long as this object lives.
        verified: Whether some worker has found, or is finding, that it does what it says.
    """

    def __init__(self, path: Path) -> None:
        self._copy: BinaryIO | None = None
        self.verified = False
        digest, location = hashlib.sha256(), path
        with _opened(path) as original:
            self.stamp = _of(os.fstat(original.fileno()))
            if hasattr(os, "memfd_create"):
                self._copy = os.fdopen(os.memfd_create("ppool-model"), "wb")
                location = Path(f"/proc/{os.getpid()}/fd/{self._copy.fileno()}")
            size = self.stamp[1]
            while size < _MOST_BYTES and (chunk := original.read(_CHUNK_BYTES)):
                size = max(size, original.tell())
                digest.update(chunk)
                if self._copy is not None:
                    self._copy.write(chunk)
            if size >= _MOST_BYTES:
                raise ValueError(f"model: {str(path)!r} has 2 GiB or more, which no ONNX file can")
            if self._copy is not None:
                self._copy.flush()
        self.file = ModelFile(path, location, digest.hexdigest())

    def close(self) -> None:
        """Forget the bytes."""
        if self._copy is not None:
            self._copy.close()

    __del__ = close


def stamp(path: Path) -> Stamp:
    """What changes when the file does."""
    return _of(path.stat())


def _of(about: os.stat_result) -> Stamp:
    return about.st_mtime_ns, about.st_size, about.st_ino


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    # Without O_NONBLOCK a FIFO that nobody writes to would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        yield file
