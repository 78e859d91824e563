"""The work of ``ppool segment``: photos to masks, several at a time, until it is told to stop."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from ppool.service.answers import Answer, Encoded, Part
from ppool.service.codecs.header import ImageLimits
from ppool.service.folder.photos import Found, Photo
from ppool.service.folder.summary import Summary, save
from ppool.service.http.errors import KNOWN, problem
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.messages import Task

__all__ = ["Counts", "Job", "Run"]

# Four channels of 16 bits, uncompressed; what is larger has no more pixels to show for it.
_BYTES_A_PIXEL = 8
# For masks that are being written when it is told to stop.
_LAST_SECONDS = 1.0

# Only this one photo's name is to blame; anything else would fail for all that follow.
_OF_ONE_NAME = {
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}

_logger = logging.getLogger("ppool.service")


@dataclass(frozen=True)
class Job:
    """How to segment.

    Attributes:
        overlay: Blend the class colours over the photo instead of writing a mask.
        tile: Segment at full resolution, in windows.
        workers: Photos at a time.
    """

    overlay: bool = False
    tile: bool = False
    workers: int = 1

    @property
    def options(self) -> str:
        """What changes masks, in a word for the summary."""
        return ("overlay" if self.overlay else "mask") + ("+tile" if self.tile else "")


@dataclass
class Counts:
    """What became of everything that was found."""

    written: int = 0
    kept: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        """As the last line of the command."""
        return (
            f"{self.written} written, {self.kept} kept, {self.failed} failed, "
            f"{self.skipped} skipped"
        )


class _Failure(Exception):  # noqa: N818 - what happened
    """This photo has no mask; the message says why."""


class _Stopped(Exception):  # noqa: N818 - what happened
    """Nothing is to be written any more."""


class _Gate:
    """Lets files be written until it is closed."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = True
        self._changed = threading.Condition()

    def save(self, content: bytes, target: Path) -> None:
        with self._changed:
            if not self._open:
                raise _Stopped
            self._inside += 1
        try:
            save(content, target)
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify()

    def close(self) -> None:
        """Let nobody in any more, and those who are in finish."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._inside, _LAST_SECONDS)


# A photo as it was read, what was found, and the size of the mask's file; or what went wrong.
_Result = tuple[Photo, Encoded, int] | tuple[Photo, _Failure | OSError, int]


class Run:
    """One run of the command.

    Args:
        job: How to segment.
        found: The photos.
        summary: Where the masks go, and what is finished.
        segmenter: The model.
        limits: What is refused.
    """

    def __init__(
        self, job: Job, found: Found, summary: Summary, segmenter: Segmenter, limits: ImageLimits
    ) -> None:
        self._job = job
        self._summary = summary
        self._segmenter = segmenter
        self._limits = limits
        self._gate = _Gate()
        self._results: SimpleQueue[_Result | None] = SimpleQueue()
        self.pending = [photo for photo in found.photos if not summary.keeps(photo)]
        self.counts = Counts(
            kept=len(found.photos) - len(self.pending),
            failed=len(found.failed),
            skipped=len(found.skipped),
        )

    def stop(self) -> None:
        """Begin no more, and do not wait for what is under way; a signal handler may call it."""
        self._results.put(None)

    def work(self, done: Callable[[str, str], None]) -> bool:
        """Do what is not finished.

        Args:
            done: Called for each photo with its name and what went wrong, if anything.

        Returns:
            Whether all is done; else :meth:`stop` was called.

        Raises:
            OSError: if masks or the summary cannot be written; what is finished stays finished.
        """
        share: SimpleQueue[Photo] = SimpleQueue()
        for photo in self.pending:
            share.put(photo)
        for number in range(min(self._job.workers, len(self.pending))):
            # Daemons: one may be inside the model for as long as that takes.
            threading.Thread(
                target=self._work, args=(share,), name=f"photos-{number}", daemon=True
            ).start()
        try:
            for _ in self.pending:
                if (result := self._results.get()) is None:
                    return False
                self._note(result, done)
        finally:
            self._gate.close()
            self._note_late(done)
            self._summary.close()
        return True

    def _work(self, share: SimpleQueue[Photo]) -> None:
        while True:
            try:
                photo = share.get_nowait()
            except Empty:
                return
            try:
                read, data = self._read(photo)
                found = self._segment(data)
                content = found.files["png"]
                self._write(photo.name, content)
                self._results.put((read, found, len(content)))
            except _Stopped:
                return
            except (_Failure, OSError) as error:
                self._results.put((photo, error, 0))

    def _note_late(self, done: Callable[[str, str], None]) -> None:
        """Masks that were finished while it was told to stop, or could not go on."""
        with suppress(OSError):
            while not self._results.empty():
                if (late := self._results.get()) is not None:
                    self._note(late, done)

    def _note(self, result: _Result, done: Callable[[str, str], None]) -> None:
        photo, outcome, mask_bytes = result
        if isinstance(outcome, OSError):
            raise outcome
        if isinstance(outcome, _Failure):
            self.counts.failed += 1
            with suppress(OSError):  # of an earlier photo, model or options
                self._summary.mask(photo.name).unlink()
            done(photo.name, str(outcome))
            return
        found = outcome.result
        shares = {area.id: area.fraction for area in found.classes} if found else {}
        labels = self._segmenter.model.classes
        self._summary.add(
            photo,
            (found.width, found.height) if found else (0, 0),
            {label.name: shares.get(label.id, 0.0) for label in labels},
            mask_bytes,
        )
        self.counts.written += 1
        done(photo.name, "")

    def _read(self, photo: Photo) -> tuple[Photo, bytes]:
        """The photo as it is now, and its bytes."""
        most = self._limits.max_pixels * _BYTES_A_PIXEL
        try:
            # A FIFO that took its place would wait for a writer.
            descriptor = os.open(photo.path, os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                about = os.fstat(descriptor)
                if not stat.S_ISREG(about.st_mode):
                    raise _Failure("no file any more")
                if about.st_size > most:
                    raise _Failure(f"larger than {most} bytes; raise PPOOL_MAX_PIXELS")
                data = file.read()
        except OSError as error:
            raise _Failure(error.strerror or type(error).__name__) from error
        return replace(photo, size=about.st_size, modified_ns=about.st_mtime_ns), data

    def _segment(self, data: bytes) -> Encoded:
        picture: Part = "overlay" if self._job.overlay else "mask"
        answer = Answer((picture, "result"), tile=self._job.tile)
        try:
            (found,) = self._segmenter.segment((Task("photo", data, answer),), self._limits)
            if isinstance(found, Exception):
                raise found
        except KNOWN as error:
            raise _Failure(problem(error).detail) from error
        except Exception as error:
            _logger.exception("a photo failed")
            raise _Failure("Internal error") from error
        return found

    def _write(self, name: str, content: bytes) -> None:
        target = self._summary.mask(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._gate.save(content, target)
        except OSError as error:
            if error.errno not in _OF_ONE_NAME:
                raise
            raise _Failure(error.strerror) from error
