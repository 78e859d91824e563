"""Photos of a folder, an object store or Parquet files in parts that are done as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs
import pyarrow.parquet

from ppool.service.folder.photos import SUFFIXES, find_photos

__all__ = ["Place", "Shard", "find_shards"]

# On average; where a part ends is a matter of names, so that a new photo changes its own part only.
_PHOTOS = 32
_MOST_PHOTOS = 8 * _PHOTOS


@dataclass(frozen=True)
class Place:
    """A folder or file, here or in a store.

    Attributes:
        text: As the user wrote it: a path, or a URL of ``s3://`` or ``gs://``.
    """

    text: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return "://" not in self.text

    def open(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """The file system, and the path in it."""
        if self.is_local:
            return pyarrow.fs.LocalFileSystem(), str(Path(self.text).absolute())
        system, path = pyarrow.fs.FileSystem.from_uri(self.text.rstrip("/"))
        return system, str(path)

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.text.rstrip('/')}/{name}")


@dataclass(frozen=True)
class Shard:
    """Some photos.

    Attributes:
        key: Of what is in it; another photo, or a changed one, gives another.
        place: The folder that the names are below, or the Parquet file.
        names: Of the photos, in order; none for all of a row group.
        row_group: Of the Parquet file.
    """

    key: str
    place: str
    names: tuple[str, ...]
    row_group: int | None = None


def find_shards(given: Sequence[str], masks: str) -> tuple[list[Shard], dict[str, str]]:
    """Look for photos.

    Args:
        given: One URL or Parquet file, or any paths as ``find_photos`` takes them.
        masks: What is left out.

    Returns:
        The shards, in the order of the photos, and what is no photo, with the reason.

    Raises:
        ValueError: if there is nothing of that name.
    """
    first = Place(given[0])
    if len(given) == 1 and given[0].rstrip("/").endswith(".parquet"):
        return list(_row_groups(first)), {}
    if first.is_local:
        found = find_photos([Path(text) for text in given], Path(masks).resolve())
        root = next((str(p.path).removesuffix(p.name) for p in found.photos), "")
        about = [(photo.name, photo.size, photo.modified_ns) for photo in found.photos]
        return list(_cut(root, about)), found.skipped | found.failed
    if len(given) > 1:
        raise ValueError("expected one URL")
    return _stored(first)


def _stored(place: Place) -> tuple[list[Shard], dict[str, str]]:
    system, root = place.open()
    about, skipped = [], {}
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    for info in system.get_file_info(selector):
        name = str(PurePosixPath(info.path).relative_to(root))
        if info.type is not pyarrow.fs.FileType.File:
            continue
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            about.append((name, info.size, info.mtime_ns or 0))
        else:
            skipped[name] = f"no photo of a kind that is read ({', '.join(sorted(SUFFIXES))})"
    return list(_cut(place.text, sorted(about))), skipped


def _cut(root: str, about: Sequence[tuple[str, int, int]]) -> Iterator[Shard]:
    part: list[tuple[str, int, int]] = []
    for photo in about:
        part.append(photo)
        first = hashlib.sha256(photo[0].encode("utf-8", "surrogateescape")).digest()[0]
        if first % _PHOTOS == 0 or len(part) == _MOST_PHOTOS:
            yield _shard(root, part)
            part = []
    if part:
        yield _shard(root, part)


def _shard(root: str, part: Sequence[tuple[str, int, int]]) -> Shard:
    return Shard(_key(root, *chain(*part)), root, tuple(name for name, *_ in part))


def _row_groups(place: Place) -> Iterator[Shard]:
    """Of a Parquet file, or all of a folder, with the columns ``name`` and ``bytes``."""
    system, root = place.open()
    info = system.get_file_info(root)
    if info.type is pyarrow.fs.FileType.NotFound:
        raise ValueError(f"{place.text}: there is no such file or folder")
    files = [info]
    if info.type is pyarrow.fs.FileType.Directory:
        files = system.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.endswith(".parquet") or file.type is not pyarrow.fs.FileType.File:
            continue
        below = PurePosixPath(file.path).relative_to(root)
        text = place.text if file is info else (place / str(below)).text
        with pyarrow.parquet.ParquetFile(file.path, filesystem=system) as opened:
            if missing := {"name", "bytes"} - set(opened.schema_arrow.names):
                raise ValueError(f"{text}: has no column {min(missing)!r}")
            for number in range(opened.num_row_groups):
                key = _key(text, file.size, file.mtime_ns or 0, number)
                yield Shard(key, text, (), number)


def _key(*about: Any) -> str:
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]
