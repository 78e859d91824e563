"""Model files wherever they are: on disk, or fetched to it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ppool.service.locations import ModelURL
from ppool.service.models import model_files
from ppool.service.store.source import StoreError, Unreachable

if TYPE_CHECKING:
    from ppool.service.store.cache import Cache
    from ppool.service.store.source import Source

__all__ = ["ModelPlaces"]

_logger = logging.getLogger("ppool.service")


class ModelPlaces:
    """Looks into the places of the settings.

    Args:
        cache: The folder for what is fetched; ``None`` for ``~/.cache/ppool/models``.
    """

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._caches: dict[ModelURL, Cache] = {}
        self._unreached: set[Path] = set()
        self._closed = False

    def close(self) -> None:
        """Give up what is being fetched."""
        self._closed = True

    @staticmethod
    def check(places: Iterable[Path | ModelURL]) -> None:
        """Find what is wrong before anything is fetched.

        Raises:
            ValueError: if there is no such file, or what fetches it is not installed.
        """
        for place in places:
            if isinstance(place, Path):
                model_files((place,))
            elif any(find_spec(name) is None for name in ("httpx", "obstore")):
                raise ValueError(f"model {place}: needs `pip install 'ppool[store]'`")

    def files(self, place: Path | ModelURL) -> list[Path]:
        """The files of one place as they are now; blocks while they are fetched.

        Raises:
            StoreError: if they cannot be fetched.
            ValueError: if there are none.
        """
        if isinstance(place, Path):
            return model_files((place,))
        from ppool.service.store.cache import Cache

        cache = self._caches.get(place)
        if cache is None:
            cache = Cache(place, self.folder(place), lambda: self._closed)
            self._caches[place] = cache
        try:
            found = cache.refresh(_source)
        except StoreError:
            self._unreached.add(self.folder(place))
            raise
        except OSError as error:
            raise StoreError(
                f"model {place}: cannot be kept in {str(self.folder(place))!r}, which "
                f"PPOOL_MODEL_CACHE sets: {error.strerror or error}"
            ) from error
        self._unreached.discard(self.folder(place))
        return found

    def at_start(self, place: Path | ModelURL) -> Sequence[Path]:
        """As :meth:`files`; if nobody answers, what was fetched the last time will do."""
        try:
            return self.files(place)
        except Unreachable as error:
            if not error.kept:
                raise
            _logger.warning("%s; taking what was fetched before", error)
            return error.kept

    def why_old(self, path: Path) -> str:
        """Why a file may not be what its store has, for people; empty if it is."""
        if path.parent not in self._unreached:
            return ""
        return "its store gave nothing when it was asked last; this is what was fetched before"

    def keep(self, path: Path, found: tuple[int, int, int]) -> None:
        """Remember a file that was fetched as one that can be served.

        Args:
            path: Where it is.
            found: Its modification time in nanoseconds, size and inode; with others it is another.
        """
        if not self._is_fetched(path):
            return
        from ppool.service.store.cache import GOOD

        kept = path.parent / GOOD / path.name
        partial = kept.with_name(f".{path.name}.{os.getpid()}")
        with suppress(OSError):  # it is served all the same
            kept.parent.mkdir(exist_ok=True)
            partial.unlink(missing_ok=True)
            partial.hardlink_to(path)
            about = partial.stat()
            if (about.st_mtime_ns, about.st_size, about.st_ino) == found:
                partial.replace(kept)
        with suppress(OSError):  # two names of one file are not replaced by each other
            partial.unlink(missing_ok=True)

    def good(self, path: Path) -> Path | None:
        """What was served before in place of a file that was fetched, if that is another one."""
        from ppool.service.store.cache import GOOD

        kept = path.parent / GOOD / path.name
        with suppress(OSError):
            if self._is_fetched(path) and not kept.samefile(path):
                return kept
        return None

    def _is_fetched(self, path: Path) -> bool:
        return any(path.parent == self.folder(place) for place in self._caches)

    def folder(self, place: Path | ModelURL) -> Path:
        """What the files of a place are in, or the one file itself."""
        if isinstance(place, Path):
            return place
        named = f"{place.parts.geturl()} {place.sha256} {place.of_manifest}"
        key = hashlib.sha256(named.encode()).hexdigest()[:32]
        return (self._cache or _user_cache()) / key


def _source(url: ModelURL) -> Source:
    # Only here: a service whose models are files needs none of it.
    if url.parts.scheme == "https":
        from ppool.service.store.web import WebFile

        return WebFile(url)
    if url.parts.scheme == "oci":
        from ppool.service.store.oci import Artifact

        return Artifact(url)
    from ppool.service.store.objects import Objects

    return Objects(url)


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given and Path(given).is_absolute():
        return Path(given) / "ppool" / "models"
    try:
        return Path.home() / ".cache" / "ppool" / "models"
    except RuntimeError as error:
        raise StoreError("models are kept in a folder: set PPOOL_MODEL_CACHE to one") from error
