"""Which photos there are to segment, and what else lies among them."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppool.service.codecs import kinds
from ppool.service.folder import pdf

__all__ = ["SUFFIXES", "Found", "Photo", "find_photos"]

SUFFIXES = kinds.SUFFIXES | {pdf.SUFFIX}


@dataclass(frozen=True)
class Photo:
    """A file to segment.

    Attributes:
        name: Its path below the folder that was asked for, or below what all that was share.
        path: Where it is.
        size: In bytes.
        modified_ns: When it last changed, as the system says.
    """

    name: str
    path: Path
    size: int
    modified_ns: int


@dataclass
class Found:
    """What lies where photos were looked for.

    Attributes:
        photos: In the order of their names.
        skipped: Name of everything that is no photo, and why.
        failed: Name of what cannot be looked at, and why.
    """

    photos: list[Photo] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def find_photos(given: Sequence[Path], masks: Path) -> Found:
    """Look for photos.

    Args:
        given: Files, folders, which are searched with the folders within, and patterns of either.
        masks: A folder that is left out.

    Raises:
        ValueError: if there is nothing of that name, or ``masks`` is where the photos are.
    """
    places = [place for path in given for place in _expanded(path)]
    folders = [place if place.is_dir() else place.parent for place in places]
    root = Path(os.path.commonpath(folders))
    if masks in folders:
        raise ValueError(f"{masks}: has the photos; choose another folder for the masks")
    found = Found()
    for path in dict.fromkeys(file for place in places for file in _files(place, masks, found)):
        _sort(path, path.relative_to(root).as_posix(), found)
    found.photos.sort(key=lambda photo: photo.name)
    return found


def _expanded(path: Path) -> list[Path]:
    """What a path or a pattern stands for, with the links to it followed."""
    if path.is_dir():
        return [path.resolve()]
    # Not Path.glob, which takes patterns below a folder only.
    names = [path] if os.path.lexists(path) else glob.glob(str(path), recursive=True)  # noqa: PTH207
    found = map(Path, names)
    if not (paths := [one.parent.resolve() / one.name for one in found]):
        raise ValueError(f"{path}: there is no such file or folder")
    return sorted(paths)


def _files(place: Path, masks: Path, found: Found) -> Iterator[Path]:
    """Everything in a folder that is none; ``place`` itself if it is none."""
    if not place.is_dir():
        yield place
        return

    def unreadable(error: OSError) -> None:
        found.failed[str(error.filename)] = error.strerror or "cannot be read"

    for folder, inner, names in os.walk(place, onerror=unreadable):
        inner[:] = sorted(name for name in inner if Path(folder, name) != masks)
        for name in sorted(names):
            yield Path(folder, name)
        for name in inner:
            if Path(folder, name).is_symlink():
                yield Path(folder, name)


def _sort(path: Path, name: str, found: Found) -> None:
    try:
        about = path.stat()
    except OSError as error:
        found.failed[name] = error.strerror or "cannot be read"
        return
    if path.is_symlink() and stat.S_ISDIR(about.st_mode):
        found.skipped[name] = "a link to a folder, which is not followed"
    elif path.suffix.lower() not in SUFFIXES:
        found.skipped[name] = "no photo, by its name"
    elif not stat.S_ISREG(about.st_mode):
        found.skipped[name] = "called like a photo, but no file"
    else:
        found.photos.append(Photo(name, path, about.st_size, about.st_mtime_ns))
