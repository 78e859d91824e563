"""``summary.csv``: what is finished, how much of each class it has, and of what it was made."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ppool.service.folder.photos import Photo

__all__ = ["ENDS", "Page", "Summary", "header", "lines", "of_others", "save", "take"]

# What the names of a page's files end with, by kind.
ENDS = {
    "mask": ".png",
    "overlay": ".overlay.png",
    "cutout": ".cutout.png",
    "probability": ".probability.png",
    "polygons": ".geojson",
    "coco": ".coco.json",
    "components": ".components.json",
    "json": ".json",
}

_NAME = "summary.csv"
_NUMBERS = count()

Row = tuple[str, ...]


class Page(NamedTuple):
    """One page of a photo file.

    Attributes:
        photo: The file.
        number: The first is 1.
        pages: How many are segmented of the file.
    """

    photo: Photo
    number: int
    pages: int

    @property
    def name(self) -> str:
        """What its files' names begin with."""
        return page_name(self.photo.name, self.number, self.pages)


class _Place(NamedTuple):
    """The first cells of a row."""

    file: str
    page: str
    pages: str


class _Made(NamedTuple):
    """The last cells of a row: what decides whether its files are still right."""

    photo_bytes: str
    photo_modified: str
    output_bytes: str
    model_sha256: str
    options: str


def save(content: bytes, target: Path) -> None:
    """Write a file that is whole, and on the disk, from the moment it has its name.

    Raises:
        OSError: naming ``target``; nothing is left behind.
    """
    partial = target.with_name(f".ppool-{os.getpid()}-{next(_NUMBERS)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, error.strerror, str(target)) from error


def take(masks: Path) -> int:
    """Make a folder for masks, if need be, and have it alone until what is returned is closed.

    Raises:
        ValueError: if it cannot be used, or another process has it.
    """
    try:
        masks.mkdir(parents=True, exist_ok=True)
        folder = os.open(masks, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ValueError(
            f"{masks}: cannot be a folder for masks ({error.strerror}); choose another"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise ValueError(f"{masks}: another ppool segment is writing there; wait for it") from None
    except OSError:
        pass  # a file system without locks
    return folder


def of_others(path: Path | str) -> str:
    """Why what is there is not gone on with."""
    return (
        f"{path}: has masks of another model, or made with other options; choose another folder "
        "for these, or make all of them again with --force"
    )


class Summary:
    """The rows of a folder of masks, one for each page; one process has it at a time.

    Args:
        masks: The folder, made if it is not there.
        classes: Of the model, by their names.
        sha256: Digest of the model's file.
        options: The kinds of files to write, and what else changes them, with + between.
        force: Forget what is finished.

    Raises:
        ValueError: if the folder cannot be used, or its masks are of another model or options.
        OSError: if nothing can be written there.
    """

    def __init__(
        self, masks: Path, classes: Sequence[str], sha256: str, options: str, *, force: bool = False
    ) -> None:
        self.masks = masks
        self._sha256, self._options = sha256, options
        self._header = header(classes)
        # By the name of the file, then by the number of the page.
        self._rows: dict[str, dict[int, Row]] = {}
        self._outdated: dict[str, list[Path]] = {}
        self._folder = take(masks)
        try:
            self._sort(self._earlier(force=force), force=force)
            for left in masks.rglob(".ppool-*.partial"):
                left.unlink()
            self._rewrite()
            self._file = (masks / _NAME).open("ab")
        except (OSError, ValueError):
            os.close(self._folder)
            raise

    def files(self, page: Page) -> dict[str, Path]:
        """Where the files of a page go, by kind."""
        return self._files(page.name, self._options)

    def keeps(self, photo: Photo) -> int:
        """How many pages there are of this very photo, if they are finished all; else 0."""
        rows = self._rows.get(photo.name, {})
        valid = [row for row in rows.values() if _made(row)[:2] == _identity(photo)]
        return len(valid) if valid and len(valid) == int(valid[0][2]) == len(rows) else 0

    def begin(self, photo: Photo) -> set[int]:
        """Delete what is there of the photo and right no more.

        Returns:
            The numbers of the pages that are finished.
        """
        rows = self._rows.pop(photo.name, {})
        kept = {page: row for page, row in rows.items() if _made(row)[:2] == _identity(photo)}
        for page in rows.keys() - kept.keys():
            self._outdate(rows[page])
        if kept:
            self._rows[photo.name] = kept
        for path in self._outdated.pop(photo.name, ()):
            with suppress(OSError):
                path.unlink()
        return set(kept)

    def add(
        self,
        page: Page,
        size: tuple[int, int],
        shares: Mapping[str, float],
        output_bytes: Sequence[int],
    ) -> None:
        """Note that the files of a page are there.

        Args:
            page: Which.
            size: Width and height in pixels.
            shares: Of each class, in the order of the header.
            output_bytes: Sizes of the files, in the order of :meth:`files`.

        Raises:
            OSError: if there is no room for the row; it is redone another time then.
        """
        place = (page.photo.name, str(page.number), str(page.pages))
        written = " ".join(map(str, output_bytes))
        made = _Made(*_identity(page.photo), written, self._sha256, self._options)
        row = (*place, *map(str, size), *(f"{share:.6f}" for share in shares.values()), *made)
        content = lines([row])
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(content)
            self._file.flush()
        except OSError:
            with suppress(OSError):
                os.truncate(self.masks / _NAME, end)
            raise
        self._rows.setdefault(page.photo.name, {})[page.number] = row

    def finished(self, kind: str) -> Iterator[Path]:
        """The files of a kind of all pages that are finished, in order."""
        for row in self._ordered():
            yield self._files(_name(row), _made(row).options)[kind]

    def close(self) -> None:
        """Put the rows in order, and let go of the folder."""
        with suppress(OSError):  # what it still holds is whole already
            self._file.close()
        try:
            self._rewrite()
        finally:
            os.close(self._folder)

    def _files(self, name: str, options: str) -> dict[str, Path]:
        kinds = (kind for kind in options.split("+") if kind in ENDS)
        return {kind: self.masks / f"{name}{ENDS[kind]}" for kind in kinds}

    def _outdate(self, row: Row) -> None:
        paths = self._files(_name(row), _made(row).options).values()
        self._outdated.setdefault(row[0], []).extend(paths)

    def _sort(self, rows: Iterable[Row], *, force: bool) -> None:
        """Tell the rows of what is finished from others, whose files go with their photos' turn."""
        ours = (self._sha256, self._options)
        for row in rows:
            if not force and _made(row)[-2:] != ours:
                raise ValueError(of_others(self.masks / _NAME))
            if force or not self._whole(row):
                self._outdate(row)
            else:
                self._rows.setdefault(row[0], {})[int(row[1])] = row

    def _whole(self, row: Row) -> bool:
        made = _made(row)
        paths = self._files(_name(row), made.options).values()
        try:
            sizes = [path.stat().st_size for path in paths]
        except (OSError, ValueError):
            return False
        return " ".join(map(str, sizes)) == made.output_bytes and all(sizes)

    def _rewrite(self) -> None:
        save(lines([self._header, *self._ordered()]), self.masks / _NAME)

    def _ordered(self) -> list[Row]:
        files = (self._rows[file] for file in sorted(self._rows))
        return [pages[number] for pages in files for number in sorted(pages)]

    def _earlier(self, *, force: bool) -> list[Row]:
        """The rows of an earlier run, but for one that was cut off."""
        path = self.masks / _NAME
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", "surrogateescape")
        try:
            first, *rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] or [()]
        except csv.Error as error:
            if force:
                return []
            raise ValueError(f"{path}: is no summary of ppool segment ({error})") from error
        if first and first != self._header and not force:
            raise ValueError(of_others(path))
        if not _is_header(first):
            return []
        return [row for row in rows if len(row) == len(first) and _is_place(row)]


def _name(row: Row) -> str:
    file, page, pages = _Place(*row[:3])
    return page_name(file, int(page), int(pages))


def page_name(file: str, page: int, pages: int) -> str:
    """What the names of a page's files begin with."""
    return file if pages == 1 else f"{file}.page-{page:04d}"


def _is_header(row: Row) -> bool:
    return row[:3] == _Place._fields and row[-len(_Made._fields) :] == _Made._fields


def _is_place(row: Row) -> bool:
    return all(cell.isascii() and cell.isdecimal() and len(cell) < 6 for cell in row[1:3])


def _made(row: Row) -> _Made:
    return _Made(*row[-len(_Made._fields) :])


def _identity(photo: Photo) -> tuple[str, str]:
    seconds, rest = divmod(photo.modified_ns, 10**9)
    return str(photo.size), f"{seconds}.{rest:09d}"


def header(classes: Iterable[str]) -> Row:
    """The names of the columns."""
    return (*_Place._fields, "width", "height", *classes, *_Made._fields)


def lines(rows: Iterable[Row]) -> bytes:
    """Rows as they are in the file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
