"""Drawn pages as a folder of files: writes it in parallel, resumes it, reads it back checked."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from ppool.training.dataset import HELD_OUT_SEED, Sample
from research.fields import Image
from research.pages.classes import PAGE_CLASSES
from research.pages.draw import draw_page, installed_fonts
from research.pages.photos import load_photos

__all__ = ["GENERATOR_VERSION", "PageDataset", "write_dataset"]

# Raise it whenever the same seed would give another page.
GENERATOR_VERSION = 7


def write_dataset(
    root: Path, count: int, seed: int = 0, workers: int = 2, val_share: float = 0.05
) -> None:
    """Draw ``count`` pages into ``root/{train,val}/{images,masks}/{index:05d}.png``.

    A second call with the same arguments draws only what is missing, and a larger ``count`` adds
    to what is there. What was drawn is described in ``root/dataset.json``.

    Args:
        root: the folder, made if missing.
        count: pages in both splits together.
        seed: seed of the first training page; page i has seed + i.
        workers: processes.
        val_share: part of the pages that goes into the validation split.

    Raises:
        ValueError: if a number is out of range, or ``root`` was drawn with another seed or
            generator version.
    """
    if count < 1 or workers < 1 or not 0 <= val_share <= 1 or not 0 <= seed < HELD_OUT_SEED:
        raise ValueError(
            "expected count >= 1, workers >= 1, val_share in 0..1 and 0 <= seed < 2**40, got "
            f"{count!r}, {workers!r}, {val_share!r}, {seed!r}"
        )
    held_out = round(count * val_share)
    splits = {"train": (seed, count - held_out), "val": (HELD_OUT_SEED + seed, held_out)}
    _describe(root, splits)
    missing = [
        (root / split / "images" / f"{index:05d}.png", first + index)
        for split, (first, pages) in splits.items()
        for index in range(pages)
        if not _mask_path(root / split / "images" / f"{index:05d}.png").exists()
    ]
    for split in splits:
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
    for _ in track(_drawn(missing, workers), "Drawing pages", total=len(missing)):
        pass


def _drawn(missing: list[tuple[Path, int]], workers: int) -> Iterator[None]:
    """Draw the pages in any order, yielding after each."""
    # Forking a process that has run torch's or OpenCV's threads can hang it.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawning, partial(cv2.setNumThreads, 1)) as pool:
        for done in as_completed(pool.submit(_write_page, *job) for job in missing):
            done.result()
            yield


def _describe(root: Path, splits: dict[str, tuple[int, int]]) -> None:
    """Write ``dataset.json``, refusing to mix pages of two generators or seeds."""
    path = root / "dataset.json"
    document = {
        "generator": GENERATOR_VERSION,
        "splits": {
            name: {"seed": first, "count": pages} for name, (first, pages) in splits.items()
        },
        "fonts": len(installed_fonts().faces),
        "photos": len(load_photos().scenes),
        "classes": [entry.name for entry in PAGE_CLASSES],
    }
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        seeds = {name: split["seed"] for name, split in found["splits"].items()}
        expected = {name: first for name, (first, _) in splits.items()}
        if found["generator"] != GENERATOR_VERSION or seeds != expected:
            raise ValueError(
                f"{path}: expected generator {GENERATOR_VERSION} and seeds {expected}, got "
                f"{found['generator']!r} and {seeds}; draw into an empty folder"
            )
    root.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(document, indent=2).encode())


def _mask_path(image: Path) -> Path:
    return image.parent.parent / "masks" / image.name


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or absent."""
    partial_path = path.with_suffix(".part")
    partial_path.write_bytes(data)
    partial_path.replace(path)


def _encoded(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1])


def _write_page(path: Path, seed: int) -> None:
    """Draw one page; the mask is written last, so a mask means a whole pair."""
    page = draw_page(seed)
    _write(path, _encoded(np.ascontiguousarray(page.image[..., ::-1])))
    _write(_mask_path(path), _encoded(page.mask))


class PageDataset:
    """The pages in one split's folder, ``images/*.png`` with ``masks/*.png`` of the same names.

    Raises:
        ValueError: if the folder holds no images, or an image lacks its mask, naming the file.
            Reading a page raises it for a file that is no picture, a mask with colours or of
            another size than its image, or a label outside :data:`PAGE_CLASSES`.
    """

    classes = PAGE_CLASSES

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((folder / "images").glob("*.png"))
        if not self.paths:
            raise ValueError(f"{folder / 'images'}: expected PNG images, found none")
        for path in self.paths:
            if not _mask_path(path).is_file():
                raise ValueError(f"{_mask_path(path)}: missing, the mask of {path.name}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        mask_path = _mask_path(path)
        mask = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None:
            raise ValueError(f"{path if image is None else mask_path}: not a readable image")
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(
                f"{mask_path}: expected 8-bit grey of class numbers, got shape {mask.shape} "
                f"{mask.dtype}"
            )
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{mask_path}: expected {image.shape[:2]} as its image, got {mask.shape}"
            )
        if mask.max(initial=0) >= len(PAGE_CLASSES):
            raise ValueError(
                f"{mask_path}: expected labels 0 to {len(PAGE_CLASSES) - 1}, got {mask.max()}"
            )
        return Sample(image.astype(np.uint8), mask.astype(np.uint8))
