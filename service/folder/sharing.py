"""How the threads of a run share the work, and stop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ppool.service.folder.photos import Photo
from ppool.service.folder.summary import Page

__all__ = ["Gate", "Share", "Stopped", "Task"]

# For masks that are being written when it is told to stop.
_LAST_SECONDS = 1.0


class Stopped(Exception):  # noqa: N818 - what happened
    """Nothing is to be written any more."""


class Gate:
    """Lets files be written, and deleted, until it is closed."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = True
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            if not self._open:
                raise Stopped
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify()

    def close(self) -> None:
        """Let nobody in any more, and those who are in finish."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._inside, _LAST_SECONDS)


@dataclass(frozen=True)
class Task:
    """A page to do, and how to get at it: its photo file, and which page of that it is."""

    page: Page
    file: Callable[[int], tuple[bytes, int]]


class Share:
    """Work for several threads: the pages of files that are open before other files."""

    def __init__(self, photos: Iterable[Photo]) -> None:
        self._photos = deque(photos)
        self._pages: deque[Task] = deque()
        self._opening = 0
        self._changed = threading.Condition()

    def take(self) -> Photo | Task | None:
        """A page to do, or a file to open; ``None`` once there is nothing left."""
        with self._changed:
            self._changed.wait_for(lambda: self._pages or self._photos or not self._opening)
            if self._pages:
                return self._pages.popleft()
            if self._photos:
                self._opening += 1
                return self._photos.popleft()
            return None

    def opened(self, pages: Iterable[Task]) -> None:
        """The pages of a file that was taken."""
        with self._changed:
            self._opening -= 1
            self._pages.extend(pages)
            self._changed.notify_all()
