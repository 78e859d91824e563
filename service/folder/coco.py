"""One COCO data set of those of all pages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

__all__ = ["merge"]


def merge(pages: Iterable[Path], target: Path) -> None:
    """Put the documents of pages into one, a page at a time.

    Raises:
        OSError: if that cannot be written.
    """
    paths = list(pages)
    categories = orjson.loads(paths[0].read_bytes())["categories"] if paths else []
    partial = target.with_name(f".ppool-{os.getpid()}-coco.partial")
    try:
        with partial.open("wb") as file:
            for opening, key in ((b'{"images":[', "images"), (b'],"annotations":[', "annotations")):
                file.write(opening)
                for number, entry in enumerate(_entries(paths, key), 1):
                    comma = b"," if number > 1 else b""
                    file.write(comma + orjson.dumps(entry | {"id": number}))
            file.write(b'],"categories":%b}' % orjson.dumps(categories))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from error


def _entries(paths: list[Path], key: str) -> Iterator[dict[str, Any]]:
    """The entries of a list of all documents, a page at a time."""
    for image, path in enumerate(paths, 1):
        for entry in orjson.loads(path.read_bytes())[key]:
            yield entry | {"image_id": image} if "image_id" in entry else entry
