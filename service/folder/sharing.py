"""How the threads of a run share the work, and stop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from ppool.service.folder.photos import Photo
from ppool.service.folder.summary import Page

__all__ = ["Gate", "Share", "Stopped", "Task"]

# So many batches of pages are open to choose from.
_AHEAD = 4
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
    """A page to do.

    Attributes:
        page: Which.
        file: Gives its photo file, and which page of that it is.
        shape: Those of one shape may go through the model together; ``None`` goes alone.
    """

    page: Page
    file: Callable[[int], tuple[bytes, int]]
    shape: Hashable = None


class Share:
    """Work for several threads: full batches of pages, before files that may fill one.

    Args:
        photos: The files.
        batch: Pages of one shape at a time, at most.
    """

    def __init__(self, photos: Iterable[Photo], batch: int = 1) -> None:
        self._photos = deque(photos)
        self._batch = batch
        self._pages: dict[Hashable, deque[Task]] = {}
        self._opening = 0
        self._changed = threading.Condition()

    def take(self) -> Photo | list[Task] | None:
        """Pages to do together, or a file to open; ``None`` once there is nothing left."""
        with self._changed:
            self._changed.wait_for(lambda: self._pages or self._photos or not self._opening)
            waiting = sum(map(len, self._pages.values()))
            shape = max(self._pages, key=self._filled, default=None)
            full = shape is not None and self._filled(shape) == 1
            if self._photos and not full and waiting < _AHEAD * self._batch:
                self._opening += 1
                return self._photos.popleft()
            return None if shape is None else self._taken(shape)

    def opened(self, pages: Iterable[Task]) -> None:
        """The pages of a file that was taken."""
        with self._changed:
            self._opening -= 1
            for task in pages:
                self._pages.setdefault((task.shape,), deque()).append(task)
            self._changed.notify_all()

    def _filled(self, shape: Hashable) -> float:
        return 1 if shape == (None,) else min(1, len(self._pages[shape]) / self._batch)

    def _taken(self, shape: Hashable) -> list[Task]:
        pages = self._pages[shape]
        most = 1 if shape == (None,) else self._batch
        taken = [pages.popleft() for _ in range(min(most, len(pages)))]
        if not pages:
            del self._pages[shape]
        return taken
