"""``summary.csv``: what is finished, how much of each class it has, and of what it was made."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ppool.service.folder.photos import Photo

__all__ = ["Summary", "save"]

_NAME = "summary.csv"
_NUMBERS = count()

Row = tuple[str, ...]


class _Made(NamedTuple):
    """The last cells of a row: what decides whether its mask is still right."""

    photo_bytes: str
    photo_modified: str
    mask_bytes: str
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


class Summary:
    """The rows of a folder of masks; one process has it at a time.

    Args:
        masks: The folder, made if it is not there.
        classes: Of the model, by their names.
        sha256: Digest of the model's file.
        options: What else changes masks, in a word.
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
        self._header: Row = ("file", "width", "height", *classes, *_Made._fields)
        try:
            masks.mkdir(parents=True, exist_ok=True)
            self._folder = os.open(masks, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ValueError(
                f"{masks}: cannot be a folder for masks ({error.strerror}); choose another"
            ) from error
        try:
            self._lock()
            self._rows = {} if force else self._earlier()
            for left in masks.rglob(".ppool-*.partial"):
                left.unlink()
            self._rewrite()
            self._file = (masks / _NAME).open("ab")
        except (OSError, ValueError):
            os.close(self._folder)
            raise

    def mask(self, name: str) -> Path:
        """Where the mask of a photo goes."""
        return self.masks / f"{name}.png"

    def keeps(self, photo: Photo) -> bool:
        """Whether there is a whole mask of this very photo; if not, its row is forgotten."""
        row = self._rows.get(photo.name)
        kept = row is not None and _made(row)[:2] == _identity(photo)
        if not kept:
            self._rows.pop(photo.name, None)
        return kept

    def _whole(self, row: Row) -> bool:
        try:
            return self.mask(row[0]).stat().st_size == int(_made(row).mask_bytes) > 0
        except (OSError, ValueError):
            return False

    def add(
        self, photo: Photo, size: tuple[int, int], shares: Mapping[str, float], mask_bytes: int
    ) -> None:
        """Note that a mask is there.

        Args:
            photo: Of which.
            size: Width and height in pixels.
            shares: Of each class, in the order of the header.
            mask_bytes: Size of its file.

        Raises:
            OSError: if there is no room for the row; it is redone another time then.
        """
        made = _Made(*_identity(photo), str(mask_bytes), self._sha256, self._options)
        row = (photo.name, *map(str, size), *(f"{share:.6f}" for share in shares.values()), *made)
        content = _lines([row])
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(content)
            self._file.flush()
        except OSError:
            with suppress(OSError):
                os.truncate(self.masks / _NAME, end)
            raise
        self._rows[photo.name] = row

    def close(self) -> None:
        """Put the rows in order, and let go of the folder."""
        with suppress(OSError):  # what it still holds is whole already
            self._file.close()
        try:
            self._rewrite()
        finally:
            os.close(self._folder)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self.masks}: another ppool segment is writing there; wait for it"
            ) from None
        except OSError:
            pass  # a file system without locks

    def _rewrite(self) -> None:
        rows = [self._rows[name] for name in sorted(self._rows)]
        save(_lines([self._header, *rows]), self.masks / _NAME)

    def _earlier(self) -> dict[str, Row]:
        """The rows of an earlier run, but for one that was cut off."""
        path = self.masks / _NAME
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", "surrogateescape")
        try:
            first, *rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] or [()]
        except csv.Error as error:
            raise ValueError(f"{path}: is no summary of ppool segment ({error})") from error
        rows = [row for row in rows if len(row) == len(self._header)]
        ours = (self._sha256, self._options)
        if first and (first != self._header or any(row[-2:] != ours for row in rows)):
            raise ValueError(
                f"{path}: has masks of another model, or made with other options; choose another "
                "folder for these, or make all of them again with --force"
            )
        return {row[0]: row for row in rows if self._whole(row)}


def _made(row: Row) -> _Made:
    return _Made(*row[-len(_Made._fields) :])


def _identity(photo: Photo) -> tuple[str, str]:
    seconds, rest = divmod(photo.modified_ns, 10**9)
    return str(photo.size), f"{seconds}.{rest:09d}"


def _lines(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
