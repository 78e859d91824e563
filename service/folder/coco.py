"""One COCO data set of those of all pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson

__all__ = ["merge", "write"]

Documents = Callable[[], Iterable[bytes]]


def merge(pages: Iterable[Path], target: Path) -> None:
    """Put the documents of pages into one, a page at a time.

    Raises:
        OSError: if that cannot be written.
    """
    paths = list(pages)
    partial = target.with_name(f".ppool-{os.getpid()}-coco.partial")
    try:
        with partial.open("wb") as file:
            write(lambda: (path.read_bytes() for path in paths), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from error


def write(documents: Documents, file: IO[bytes]) -> None:
    """Put documents, which are asked for more than once, into one."""
    first = next(iter(documents()), b'{"categories":[]}')
    for opening, key in ((b'{"images":[', "images"), (b'],"annotations":[', "annotations")):
        file.write(opening)
        for number, entry in enumerate(_entries(documents(), key), 1):
            comma = b"," if number > 1 else b""
            file.write(comma + orjson.dumps(entry | {"id": number}))
    file.write(b'],"categories":%b}' % orjson.dumps(orjson.loads(first)["categories"]))


def _entries(documents: Iterable[bytes], key: str) -> Iterator[dict[str, Any]]:
    """The entries of a list of all documents, a page at a time."""
    for image, document in enumerate(documents, 1):
        for entry in orjson.loads(document)[key]:
            yield entry | {"image_id": image} if "image_id" in entry else entry
