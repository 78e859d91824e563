"""``ppool segment``: a folder of photos to a folder of masks, with no server.

Interrupted, it goes on where it stopped: a photo is finished when its mask and its row are there.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ppool.service.codecs.answers import ZIP, Answer
from ppool.service.codecs.header import ImageLimits
from ppool.service.codecs.kinds import SUFFIXES
from ppool.service.http.errors import KNOWN, problem
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.messages import Task

__all__ = ["Folder", "segment_folder"]

SUMMARY = "summary.csv"
_ABOUT = ("file", "width", "height")

_logger = logging.getLogger("ppool.service")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Folder:
    """What to do.

    Attributes:
        photos: Searched for images, folders within included.
        masks: Gets a palette PNG for each, ``<photo's name>.png``, and ``summary.csv``.
        overlay: Blend the class colours over the photo instead.
        tile: Segment at full resolution, in windows.
        workers: Photos at a time.
    """

    photos: Path
    masks: Path
    overlay: bool = False
    tile: bool = False
    workers: int = 1

    def pending(self, finished: Iterable[str]) -> list[Path]:
        """The photos still to do, in the order of their names."""
        found = [path for path in self.photos.rglob("*") if path.suffix.lower() in SUFFIXES]
        if self.masks.is_relative_to(self.photos):
            found = [path for path in found if not path.is_relative_to(self.masks)]
        done = set(finished)
        return sorted(path for path in found if self.name(path) not in done)

    def name(self, photo: Path) -> str:
        """The photo in the summary: its path below the folder."""
        return photo.relative_to(self.photos).as_posix()

    def mask(self, name: str) -> Path:
        """Where the mask of a photo goes."""
        return self.masks / f"{name}.png"


def segment_folder(
    folder: Folder,
    segmenter: Segmenter,
    limits: ImageLimits,
    *,
    started: Callable[[int], None],
    done: Callable[[str, str], None],
) -> int:
    """Segment whatever is not finished yet, and write ``summary.csv``.

    Args:
        folder: What to do.
        segmenter: The model.
        limits: What is refused.
        started: Called with the number of photos to do.
        done: Called for each with its name and what went wrong, if anything.

    Returns:
        How many photos failed.

    Raises:
        ValueError: without photos or a place to write, or if the masks there are of another model.
    """
    classes = [label.name for label in segmenter.model.metadata.classes]
    header = (*_ABOUT, *classes)
    rows = _finished(folder, header)
    pending = folder.pending(rows)
    if not pending and not rows:
        kinds = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{folder.photos}: expected photos ({kinds}), found none")
    started(len(pending))
    failures = 0
    summary = folder.masks / SUMMARY
    _write(summary, header, rows.values())
    with (
        summary.open("a", newline="", encoding="utf-8") as file,
        ThreadPoolExecutor(folder.workers) as pool,
    ):
        writer = csv.writer(file)
        work = [pool.submit(_segment, folder, photo, segmenter, limits) for photo in pending]
        for photo, future in zip(pending, work, strict=True):
            name = folder.name(photo)
            try:
                rows[name] = future.result()
            except _Failure as failure:
                failures += 1
                done(name, str(failure))
                continue
            writer.writerow(rows[name])
            file.flush()
            done(name, "")
    _write(summary, header, [rows[name] for name in sorted(rows)])
    return failures


def _finished(folder: Folder, header: Row) -> dict[str, Row]:
    """The rows of an earlier run whose masks are there."""
    if folder.masks == folder.photos:
        raise ValueError(f"{folder.masks}: has the photos; choose another folder for the masks")
    try:
        folder.masks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder.masks}: cannot be a folder for masks ({error.strerror}); choose another"
        ) from error
    summary = folder.masks / SUMMARY
    if not summary.is_file():
        return {}
    with summary.open(newline="", encoding="utf-8") as file:
        first, *rows = [tuple(row) for row in csv.reader(file)] or [()]
    if first != header:
        raise ValueError(f"{summary}: is of another model; choose another folder for the masks")
    # A row cut off by a crash has fewer cells.
    return {
        row[0]: row for row in rows if len(row) == len(header) and folder.mask(row[0]).is_file()
    }


class _Failure(Exception):  # noqa: N818 - what happened
    """This photo has no mask; the message says why."""


def _segment(folder: Folder, photo: Path, segmenter: Segmenter, limits: ImageLimits) -> Row:
    """Write the mask of one photo; its row of the summary."""
    answer = Answer(ZIP, "none", overlay=folder.overlay, rle=False, tile=folder.tile)
    name = folder.name(photo)
    try:
        (found,) = segmenter.segment((Task(name, photo.read_bytes(), answer),), limits)
        if isinstance(found, Exception):
            raise found
        target = folder.mask(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        partial.write_bytes(found.files["png"])
        partial.replace(target)
    except KNOWN as error:
        raise _Failure(problem(error).detail) from error
    except OSError as error:
        raise _Failure(error.strerror or type(error).__name__) from error
    except Exception as error:
        _logger.exception("segmenting %s failed", name)
        raise _Failure("Internal error") from error
    shares = {area.id: area.fraction for area in found.result.classes} if found.result else {}
    size = (str(found.result.width), str(found.result.height)) if found.result else ("", "")
    labels = segmenter.model.metadata.classes
    return (name, *size, *(f"{shares.get(label.id, 0):.6f}" for label in labels))


def _write(summary: Path, header: Row, rows: Iterable[Row]) -> None:
    partial = summary.with_name(f"{summary.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    partial.replace(summary)
