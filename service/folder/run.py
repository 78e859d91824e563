"""The work of ``ppool segment``: photos to masks, several at a time, until it is told to stop."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol

import orjson

from ppool.service.answers import Answer, Encoded, MapsWanted, Part
from ppool.service.codecs.header import ImageLimits
from ppool.service.folder import coco
from ppool.service.folder.pages import open_pages
from ppool.service.folder.pdf import DPI
from ppool.service.folder.photos import Found, Photo
from ppool.service.folder.sharing import Gate, Share, Stopped, Task
from ppool.service.folder.summary import Page, Summary, save
from ppool.service.http.classes import class_ids
from ppool.service.http.errors import KNOWN, BadRequest, problem
from ppool.service.models import Model
from ppool.service.results import ImageResult
from ppool.service.workers import messages
from ppool.service.workers.inference import Segmenter

__all__ = ["Counts", "Job", "Run", "Watch"]

# The kinds of files that are made with the mask; any other is the result.
_PARTS: tuple[Part, ...] = (
    *("mask", "overlay", "cutout", "probability", "polygons", "coco", "components"),
)
# Those that tell of overlapping classes.
_OF_PLANES = frozenset({"polygons", "coco", "components", "json"})

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
        outputs: The kinds of files to write, of :data:`ENDS`.
        tile: Segment at full resolution, in windows.
        dpi: At which pages of a PDF are drawn.
        classes: Names or ids, with commas, of the classes to leave; ``None`` for all.
        cutout: Likewise of those to keep in cut-outs.
        workers: Pages at a time.
    """

    outputs: tuple[str, ...] = ("mask",)
    tile: bool = False
    dpi: int = DPI
    classes: str | None = None
    cutout: str | None = None
    workers: int = 1

    @property
    def options(self) -> str:
        """What changes the files, for the summary."""
        others = {
            "tile": self.tile,
            f"dpi={self.dpi}": self.dpi != DPI,
            f"classes={self.classes}": self.classes is not None,
            f"cutout={self.cutout}": self.cutout is not None,
        }
        words = (word.replace("+", "%2B") for word, holds in others.items() if holds)
        return "+".join([*self.outputs, *words])

    def answer(self, model: Model) -> Answer:
        """What is to be made of each page.

        Raises:
            ValueError: if the model cannot.
        """
        parts = tuple(part for part in _PARTS if part in self.outputs)
        if "probability" in parts and model.why_no_probability:
            raise ValueError(model.why_no_probability)
        if self.tile and "tile" not in model.modes:
            raise ValueError(
                f"the model {model.name!r} cannot segment in windows; leave out --tile"
            )
        if ("cutout" in parts) != (self.cutout is not None):
            raise ValueError("say with --cutout which classes a cut-out is of, and write it")
        classes, cutout = _ids("classes", self.classes, model), _ids("cutout", self.cutout, model)
        # As at /segment: overlapping classes are told by planes, and edges are soft where it is
        # known how.
        overlap = model.head == "multilabel" and model.offers_scores
        planes = range(len(model.classes)) if classes is None else classes
        return Answer(
            (*parts, "result"),
            inline="rle" if "json" in self.outputs else None,
            tile=self.tile,
            maps=MapsWanted(
                () if "probability" in parts else None,
                tuple(planes) if overlap and not _OF_PLANES.isdisjoint(self.outputs) else (),
                opacity=() if model.why_no_probability else cutout or (),
            ),
            classes=classes,
            cutout=cutout or (),
            named=True,
        )


def _ids(option: str, text: str | None, model: Model) -> tuple[int, ...] | None:
    try:
        return None if text is None else class_ids(option, text, model)
    except BadRequest as error:
        raise ValueError(error.detail) from error


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
    """

    def __init__(
        self, job: Job, found: Found, summary: Summary, segmenter: Segmenter, limits: ImageLimits
    ) -> None:
        self._job = job
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
        share, whole = Share(self.pending), self._summary.masks / "coco.json"
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
                    self._do(work.page, work.file)
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
            tasks = [Task(Page(file.photo, number, count), file.file) for number in todo]
            self._results.put(_Opened(count - len(todo), len(todo)))
        except _Failure as error:
            with self._gate:
                self._summary.begin(photo)
            self._discard(Page(photo, 1, 1))
            self._results.put(_Failed(photo.name, error))
        finally:
            share.opened(tasks)

    def _do(self, page: Page, file: Callable[[int], tuple[bytes, int]]) -> None:
        try:
            with _failures():
                found = self._segment(page, *file(page.number))
            self._results.put(self._write(page, found))
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

    def _segment(self, page: Page, data: bytes, number: int) -> Encoded:
        answer = replace(self._answer, page=number)
        task = messages.Task(page.photo.name, data, answer)
        (found,) = self._segmenter.segment((task,), self._limits)
        if isinstance(found, Exception):
            raise found
        return found

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
