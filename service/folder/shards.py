"""Photos of a folder, an object store or Parquet files in parts that are done as a whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow.fs
import pyarrow.parquet

from ppool.service.folder.photos import SUFFIXES, Found, find_photos

__all__ = ["Place", "Shard", "find_shards"]

# On average; where a part ends is a matter of names, so that a new photo changes its own part only.
_PHOTOS = 32
_MOST_PHOTOS = 8 * _PHOTOS
_COPY_BYTES = 2**20


@dataclass(frozen=True)
class Place:
    """A folder or file, here or in a store.

    Attributes:
        text: As the user wrote it: a path, or a URL of ``s3://`` or ``gs://``.
        below: Of what is in it, the path from there.
    """

    text: str
    below: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return "://" not in self.text

    def open(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """The file system, and the path in it."""
        if self.is_local:
            system, root = pyarrow.fs.LocalFileSystem(), str(Path(self.text).absolute())
        else:
            system, root = _opened(self.text)
        return system, f"{root}/{self.below}" if self.below else root

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """A file that gets its name, or becomes an object, when it is whole."""
        system, path = self.open()
        if self.is_local:
            folder, _, name = path.rpartition("/")
            Path(folder).mkdir(parents=True, exist_ok=True)
            partial = Path(folder, f".ppool-{name}.{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            return
        with TemporaryFile() as file:
            yield file
            file.seek(0)
            with system.open_output_stream(path) as stream:
                while part := file.read(_COPY_BYTES):
                    stream.write(part)

    def remove(self) -> None:
        """Delete the file, if there is one."""
        system, path = self.open()
        if system.get_file_info(path).type is pyarrow.fs.FileType.File:
            system.delete_file(path)

    def __truediv__(self, name: str) -> Place:
        return Place(self.text, f"{self.below}/{name}" if self.below else name)


@lru_cache(maxsize=16)
def _opened(text: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A client of a store is made once: it may have to ask where its bucket is."""
    url = urlsplit(text)
    query = url.query
    if url.scheme == "s3" and "allow_delayed_open" not in query:
        # One request for a small object instead of the three of an upload in parts.
        query = "&".join(filter(None, (query, "allow_delayed_open=true")))
    system, path = pyarrow.fs.FileSystem.from_uri(
        urlunsplit(url._replace(path=url.path.rstrip("/"), query=query))
    )
    return system, str(path)


@dataclass(frozen=True)
class Shard:
    """Some photos.

    Attributes:
        key: Of what is in it; another photo, or a changed one, gives another.
        place: The folder that the names are below, or the Parquet file or files.
        names: Of the photos, in order; none for all of a row group.
        count: Of the photos.
        row_group: Of the Parquet file.
        file: The Parquet file, where the place is a folder of them.
    """

    key: str
    place: str
    names: tuple[str, ...]
    count: int
    row_group: int | None = None
    file: str = ""


def find_shards(given: Sequence[str], masks: str) -> tuple[list[Shard], Found]:
    """Look for photos.

    Args:
        given: One URL or Parquet file, or any paths as ``find_photos`` takes them.
        masks: What is left out.

    Returns:
        The shards, in the order of the photos, and what is in none, with the reason.

    Raises:
        ValueError: if there is nothing of that name.
    """
    first = Place(given[0])
    if len(given) == 1 and given[0].rstrip("/").endswith(".parquet"):
        return list(_row_groups(first)), Found()
    if first.is_local:
        found = find_photos([Path(text) for text in given], Path(masks).resolve())
        root = next((str(p.path).removesuffix(p.name) for p in found.photos), "")
        about = [
            (photo.name, photo.size, photo.modified_ns)
            for photo in found.photos
            if _is_text(photo.name, found)
        ]
        return list(_cut(root, about)), found
    if len(given) > 1:
        raise ValueError("expected one URL")
    return _stored(first)


def _is_text(name: str, found: Found) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        found.failed[name] = "its name is no UTF-8, as Parquet has it; rename it"
        return False
    return True


def _stored(place: Place) -> tuple[list[Shard], Found]:
    system, root = place.open()
    about, found = [], Found()
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    for info in system.get_file_info(selector):
        name = str(PurePosixPath(info.path).relative_to(root))
        if info.type is not pyarrow.fs.FileType.File:
            continue
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            about.append((name, info.size, info.mtime_ns or 0))
        else:
            found.skipped[name] = "no photo, by its name"
    return list(_cut(place.text, sorted(about))), found


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
    return Shard(_key(root, *chain(*part)), root, tuple(name for name, *_ in part), len(part))


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
        below = "" if file is info else str(PurePosixPath(file.path).relative_to(root))
        text = f"{place.text}/{below}" if below else place.text
        with pyarrow.parquet.ParquetFile(file.path, filesystem=system) as opened:
            found = {field.name: str(field.type) for field in opened.schema_arrow}
            for name, kind in (("name", "string"), ("bytes", "binary")):
                if not found.get(name, "").endswith(kind):
                    raise ValueError(f"{text}: has no column {name!r} of type {kind}")
            for number in range(opened.num_row_groups):
                key = _key(text, file.size, file.mtime_ns or 0, number)
                count = opened.metadata.row_group(number).num_rows
                yield Shard(key, place.text, (), count, number, below)


def _key(*about: Any) -> str:
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]
