"""The work of ``ppool segment``: photos to masks, several at a time, until it is told to stop."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol

import orjson

from ppool.service.answers import Encoded
from ppool.service.codecs.header import ImageLimits, probe
from ppool.service.folder import coco
from ppool.service.folder.job import Job
from ppool.service.folder.pages import Pages, open_pages
from ppool.service.folder.photos import Found, Photo
from ppool.service.folder.sharing import Gate, Share, Stopped, Task
from ppool.service.folder.summary import Page, Summary, save
from ppool.service.http.errors import KNOWN, problem
from ppool.service.results import ImageResult
from ppool.service.workers import messages
from ppool.service.workers.inference import Segmenter

__all__ = ["Counts", "Run", "Watch"]

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


class Watch(Protocol):
    """Who wants to know how far it is."""

    def more(self, count: int) -> None:
        """So many more pages are to be done than was said."""

    def done(self, name: str, problem: str) -> None:
        """A page, or a file that has none, is done; ``problem`` says what went wrong, if any."""


class _Failure(Exception):  # noqa: N818 - what happened
    """This photo has no mask; the message says why."""


@dataclass(frozen=True)
class _Opened:
    """A file whose pages are being done, but for those that were kept."""

    kept: int
    pages: int


@dataclass(frozen=True)
class _Done:
    """A page whose files are written, so many bytes each."""

    page: Page
    result: ImageResult
    sizes: list[int]


@dataclass(frozen=True)
class _Failed:
    """A file or page that has none, or why none can be written any more."""

    name: str
    error: _Failure | OSError


class Run:
    """One run of the command.

    Args:
        job: How to segment.
        found: The photos.
        summary: Where the masks go, and what is finished.
        segmenter: The model.
        limits: What is refused.

    Attributes:
        found: The photos.
        pending: Those that are not finished.
        counts: What became of everything.
    """

    def __init__(
        self, job: Job, found: Found, summary: Summary, segmenter: Segmenter, limits: ImageLimits
    ) -> None:
        self._job = job
        self.found = found
        self._summary = summary
        self._segmenter = segmenter
        self._limits = limits
        self._answer = job.answer(segmenter.model)
        self._gate = Gate()
        self._results: SimpleQueue[_Opened | _Done | _Failed | None] = SimpleQueue()
        kept = {photo: summary.keeps(photo) for photo in found.photos}
        self.pending = [photo for photo, pages in kept.items() if not pages]
        self.counts = Counts(
            kept=sum(kept.values()), failed=len(found.failed), skipped=len(found.skipped)
        )

    @property
    def written(self) -> str:
        """What is where, in words."""
        return f"in {self._summary.masks}: {self._job.files}; summary.csv lists them"

    def stop(self) -> None:
        """Begin no more, and do not wait for what is under way; a signal handler may call it."""
        self._results.put(None)

    def work(self, watch: Watch) -> bool:
        """Do what is not finished.

        Args:
            watch: Is told of every page.

        Returns:
            Whether all is done; else :meth:`stop` was called.

        Raises:
            OSError: if masks or the summary cannot be written; what is finished stays finished.
        """
        share, whole = Share(self.pending, self._job.batch), self._summary.masks / "coco.json"
        if self.pending:
            whole.unlink(missing_ok=True)
        for number in range(self._job.workers if self.pending else 0):
            # Daemons: one may be inside the model for as long as that takes.
            threading.Thread(
                target=self._work, args=(share,), name=f"photos-{number}", daemon=True
            ).start()
        left = len(self.pending)
        watch.more(left)
        try:
            while left:
                if (result := self._results.get()) is None:
                    return False
                if isinstance(result, _Opened):
                    self.counts.kept += result.kept
                    left += result.pages - 1
                    watch.more(result.pages - 1)
                else:
                    left -= 1
                    self._note(result, watch)
            if "coco" in self._job.outputs:
                coco.merge(self._summary.finished("coco"), whole)
        finally:
            self._gate.close()
            self._note_late(watch)
            self._summary.close()
        return True

    def _work(self, share: Share) -> None:
        try:
            while work := share.take():
                if isinstance(work, Photo):
                    self._open(work, share)
                else:
                    self._do(work)
        except Stopped:
            return

    def _open(self, photo: Photo, share: Share) -> None:
        tasks: list[Task] = []
        try:
            with _failures():
                file = open_pages(photo, self._limits, self._job.dpi)
            with self._gate:
                kept = self._summary.begin(file.photo)
            count = len(file.numbers)
            todo = [number for number in file.numbers if number not in kept]
            pages = [Page(file.photo, number, count) for number in todo]
            tasks = [Task(page, file.file, self._shape(page, file)) for page in pages]
            self._results.put(_Opened(count - len(todo), len(todo)))
        except _Failure as error:
            with self._gate:
                self._summary.begin(photo)
            self._discard(Page(photo, 1, 1))
            self._results.put(_Failed(photo.name, error))
        finally:
            share.opened(tasks)

    def _shape(self, page: Page, file: Pages) -> tuple[int, int] | None:
        """What the page is padded to, where batches are asked for and its header tells."""
        if self._job.batch == 1 or self._job.tile or file.drawn:
            return None
        policy = self._segmenter.model.input
        with suppress(Exception):  # whatever it is, it is told when the page is done
            data, number = file.file(page.number)
            width, height = probe(data, self._limits, number)
            return policy.padded_shape(*policy.reduced(height, width))
        return None

    def _do(self, tasks: list[Task]) -> None:
        """Pages of one shape, together."""
        asked: list[tuple[Page, messages.Task]] = []
        for task in tasks:
            with self._told(task.page), _failures():
                asked.append((task.page, self._asked(task)))
        if not asked:
            return
        outcomes = self._segmenter.segment([task for _, task in asked], self._limits)
        for (page, _), outcome in zip(asked, outcomes, strict=True):
            with self._told(page):
                with _failures():
                    if isinstance(outcome, Exception):
                        raise outcome
                self._results.put(self._write(page, outcome))

    @contextmanager
    def _told(self, page: Page) -> Iterator[None]:
        """That the page has failed, and why."""
        try:
            yield
        except (_Failure, OSError) as error:
            self._discard(page)
            self._results.put(_Failed(page.name, error))

    def _discard(self, page: Page) -> None:
        """What there may be of another time, or of the half of it."""
        with self._gate:
            for path in self._summary.files(page).values():
                with suppress(OSError):
                    path.unlink()

    def _note_late(self, watch: Watch) -> None:
        """Masks that were finished while it was told to stop, or could not go on."""
        with suppress(OSError):
            while not self._results.empty():
                late = self._results.get()
                if isinstance(late, (_Done, _Failed)):
                    self._note(late, watch)

    def _note(self, result: _Done | _Failed, watch: Watch) -> None:
        if isinstance(result, _Failed):
            if isinstance(result.error, OSError):
                raise result.error
            self.counts.failed += 1
            watch.done(result.name, str(result.error))
            return
        found = result.result
        shares = {area.id: area.fraction for area in found.classes}
        labels = self._segmenter.model.classes
        self._summary.add(
            result.page,
            (found.width, found.height),
            {label.name: shares.get(label.id, 0.0) for label in labels},
            result.sizes,
        )
        self.counts.written += 1
        watch.done(result.page.name, "")

    def _asked(self, task: Task) -> messages.Task:
        data, number = task.file(task.page.number)
        return messages.Task(task.page.photo.name, data, replace(self._answer, page=number))

    def _write(self, page: Page, found: Encoded) -> _Done:
        if found.result is None:
            raise TypeError("expected the result that was asked for")
        sizes = []
        try:
            for kind, target in self._summary.files(page).items():
                content = _content(kind, page, found.result, found.files)
                target.parent.mkdir(parents=True, exist_ok=True)
                with self._gate:
                    save(content, target)
                sizes.append(len(content))
        except OSError as error:
            if error.errno not in _OF_ONE_NAME:
                raise
            raise _Failure(error.strerror) from error
        return _Done(page, found.result, sizes)


def _content(kind: str, page: Page, result: ImageResult, files: Mapping[str, bytes]) -> bytes:
    """A file of a page; the same page has the same files, whenever it is segmented."""
    if kind == "components":
        return orjson.dumps(result.components)
    if kind == "json":
        about = {"name": page.photo.name, "page": page.number, "pages": page.pages}
        keys = ("width", "height", "model", "classes", "mask", "planes")
        found = {key: getattr(result, key) for key in keys}
        return orjson.dumps(about | {key: value for key, value in found.items() if value})
    (content,) = (content for name, content in files.items() if name.startswith(f"{kind}."))
    if kind == "coco" and page.pages > 1:
        document = orjson.loads(content)
        document["images"][0]["page"] = page.number  # COCO's files have one
        content = orjson.dumps(document)
    return content


@contextmanager
def _failures() -> Iterator[None]:
    """Whatever goes wrong with a photo is told in a sentence."""
    try:
        yield
    except KNOWN as error:
        raise _Failure(problem(error).detail) from error
    except OSError as error:
        raise _Failure(error.strerror or type(error).__name__) from error
    except Exception as error:
        _logger.exception("a photo failed")
        raise _Failure("Internal error") from error
