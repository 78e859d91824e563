"""Long work on the event loop, a little at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

__all__ = ["Turns"]

R = TypeVar("R")

# Small work is then done at once, as another turn of the loop costs more than most of its steps.
_TURN_SECONDS = 0.002


class Turns:
    """Lets others go on between the steps of long work, and does one such work at a time.

    A thread would not do: parsers hold the interpreter's lock, and many threads would hold it one
    after the other.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, steps: Generator[None, None, R]) -> R:
        """What ``steps`` returns; each of its steps should take a few milliseconds at most."""
        async with self._lock:
            start = time.perf_counter()
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    result: R = end.value
                    return result
                if time.perf_counter() - start > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    start = time.perf_counter()
