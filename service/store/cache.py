"""Fetched files on disk: whole or not at all, for several processes at once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ppool.service.locations import ModelURL
from ppool.service.store.source import Damaged, Found, Source, StoreError, Unreachable

__all__ = ["GOOD", "Cache"]

GOOD = "good"
"""Folder in the cache for what was in service, whatever has been fetched since."""

_INDEX = "index.json"
_LOCK_SECONDS, _LOOK_SECONDS = 600.0, 0.1
# As for any model file.
_MOST_BYTES = 2**31
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class _Entry:
    """What is known of a file in the cache."""

    version: str
    sha256: str


class Cache:
    """The files of one URL in a folder of their own.

    Args:
        url: Where they come from.
        folder: Where they are; it is made.
        closed: Whether to stop, asked now and then.
    """

    def __init__(self, url: ModelURL, folder: Path, closed: Callable[[], bool]) -> None:
        self._url = url
        self._folder = folder
        self._closed = closed
        self._file_sha256 = "" if url.of_manifest else url.sha256
        # Modification time and inode of what this process has found to be whole.
        self._whole: dict[str, tuple[int, int]] = {}

    def refresh(self, source: Callable[[ModelURL], Source]) -> list[Path]:
        """Fetch what is new; a file that is not stays as it is, its modification time too.

        Raises:
            Unreachable: if nobody answers; it has the files that were fetched before.
            StoreError: if the files cannot be had, or are not what the digest says.
            OSError: if the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            kept = self._kept()
            if self._pinned(kept):
                return self._paths(kept)
            fresh: dict[str, _Entry] = {}
            try:
                with closing(source(self._url).files(self._known(kept))) as files:
                    for found in files:
                        if found.name in fresh:
                            raise StoreError(f"model {self._url}: two files {found.name!r}")
                        fresh[found.name] = self._take(found, kept)
                        self._save(kept | fresh)
            except Unreachable as error:
                error.kept = tuple(self._paths(kept))
                raise
            self._save(fresh)
            for name in kept.keys() - fresh.keys():
                (self._folder / name).unlink(missing_ok=True)
                (self._folder / GOOD / name).unlink(missing_ok=True)
            return self._paths(fresh)

    def _pinned(self, kept: dict[str, _Entry]) -> bool:
        """Whether nothing need be asked, as what is here can only be right."""
        return [entry.sha256 for entry in kept.values()] == [self._file_sha256]

    def _known(self, kept: dict[str, _Entry]) -> dict[str, str]:
        """Versions that need not be sent again."""
        return {
            name: entry.version
            for name, entry in kept.items()
            if entry.sha256 == (self._file_sha256 or entry.sha256)
        }

    def _take(self, found: Found, kept: dict[str, _Entry]) -> _Entry:
        old = kept.get(found.name)
        if found.content is None and old is not None:
            return old
        partial = self._folder / f".{found.name}.{os.getpid()}"
        try:
            sha256 = self._write(found, partial)
            for wanted in (found.sha256, self._file_sha256):
                if wanted not in ("", sha256):
                    raise Damaged(f"model {self._url}: its SHA-256 is {sha256}, not {wanted}")
            if old is None or old.sha256 != sha256:
                partial.replace(self._folder / found.name)
                self._note_whole(found.name)
        finally:
            partial.unlink(missing_ok=True)
        return _Entry(found.version, sha256)

    def _write(self, found: Found, partial: Path) -> str:
        digest, size = hashlib.sha256(), 0
        with partial.open("wb") as file:
            for chunk in found.content or ():
                if self._closed():
                    raise StoreError(f"model {self._url}: the service ends")
                size += len(chunk)
                if size >= _MOST_BYTES:
                    raise StoreError(f"model {self._url}: 2 GiB or more, which no ONNX file has")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _kept(self) -> dict[str, _Entry]:
        """What is here and whole."""
        try:
            index = json.loads((self._folder / _INDEX).read_bytes())
            entries = {name: _Entry(**about) for name, about in index.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return {name: entry for name, entry in entries.items() if self._is_whole(name, entry)}

    def _is_whole(self, name: str, entry: _Entry) -> bool:
        path = self._folder / name
        try:
            about = path.stat()
            if self._whole.get(name) == (about.st_mtime_ns, about.st_ino):
                return True
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        except OSError:
            return False
        if whole:
            self._note_whole(name)
        return whole

    def _note_whole(self, name: str) -> None:
        about = (self._folder / name).stat()
        self._whole[name] = about.st_mtime_ns, about.st_ino

    def _save(self, entries: dict[str, _Entry]) -> None:
        partial = self._folder / f".{_INDEX}.{os.getpid()}"
        partial.write_text(json.dumps({name: asdict(entry) for name, entry in entries.items()}))
        partial.replace(self._folder / _INDEX)

    def _paths(self, entries: dict[str, _Entry]) -> list[Path]:
        return [self._folder / name for name in sorted(entries)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the folder; the lock of a process that dies is free."""
        end = time.monotonic() + _LOCK_SECONDS
        with (self._folder / ".lock").open("wb") as file:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > end or self._closed():
                    raise Unreachable(f"model {self._url}: another process is still fetching it")
                time.sleep(_LOOK_SECONDS)
            yield
