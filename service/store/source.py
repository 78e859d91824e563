"""What a store is to the cache: it names its files, and gives those that are not known."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = [
    "CONNECT_SECONDS",
    "READ_SECONDS",
    "Damaged",
    "Found",
    "Source",
    "StoreError",
    "Unreachable",
]

CONNECT_SECONDS = 10.0
# Without a byte; a whole file may take as long as it takes.
READ_SECONDS = 20.0


class StoreError(ValueError):
    """There is no such file, or we may not have it; the message is for people."""


class Unreachable(StoreError):  # noqa: N818 - what happened
    """Nobody answers, or not in time; what was fetched before may do meanwhile.

    Attributes:
        kept: Those files.
    """

    kept: tuple[Path, ...] = ()


class Damaged(Unreachable):
    """What came is not what its digest says."""


@dataclass(frozen=True)
class Found:
    """A file in a store.

    Attributes:
        name: Without folders.
        version: Another one when the content is another, as the ETag; empty if nothing tells.
        content: To be read before the next file is asked for; ``None``: the version is known.
        sha256: What the store says that the content has; empty where it says nothing.
    """

    name: str
    version: str
    content: Iterator[bytes] | None
    sha256: str = ""


class Source(Protocol):
    """The files behind one URL."""

    def files(self, known: Mapping[str, str]) -> Generator[Found]:
        """Every file there is now.

        Args:
            known: Versions of what is in the cache, by name.

        Raises:
            StoreError: if it cannot be had.
        """
