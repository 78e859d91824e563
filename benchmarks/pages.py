"""The shipped model on real pages: DIBCO's contests beside Otsu and Sauvola, blank sheets, photos.

Usage: PPOOL_DIBCO=FOLDER python -m benchmarks.pages. The folder holds ``*_source.*`` and
``*_target.png`` (0 is ink) under the contests' own names, such as ``DIBCO2009_H01_source.jpg``.
Every photo takes the way of a request without options; ``--url`` sends it to a server instead.
Of the photographs without a page in the folder PPOOL_PHOTOS 24 are taken, evenly spaced.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import cv2
import httpx
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from skimage import data
from skimage.filters import threshold_otsu, threshold_sauvola

from benchmarks.measure import write
from ppool.metadata import LabelClass
from ppool.service.answers import Answer, Encoded
from ppool.service.codecs.header import ImageLimits
from ppool.service.models import shipped_model
from ppool.service.workers.inference import load_segmenter
from ppool.service.workers.messages import Task

__all__ = ["Page", "f_measure", "judge", "pages_of", "segmenter"]

Mask = NDArray[np.uint8]
Truth = NDArray[np.bool_]
# The mask, class ids [H, W], of a photo file.
Segment = Callable[[bytes], Mask]

WAYS = ("otsu", "sauvola", "model")
INK = ("text", "handwriting", "line", "stamp")
# The rivals' levels of grey, a number or a field [H, W], up to which a pixel is ink.
_LEVELS: Mapping[str, Callable[[Mask], Any]] = {
    "otsu": threshold_otsu,
    "sauvola": partial(threshold_sauvola, window_size=25, k=0.2),
}
_LIMITS = ImageLimits(max_pixels=100_000_000, max_side_pixels=20_000, max_frames=1)
_PHOTOS = 24
_NAME = re.compile(r"(\D*\d{4})_([HP])?.*_source\.\w+$")


@dataclass(frozen=True)
class Page:
    """A photographed page and where its ink is.

    Attributes:
        contest: Such as ``DIBCO2009``.
        kind: ``P`` printed, ``H`` handwritten, or empty if the name does not tell.
        source: The photo.
        target: Its truth, a bit a pixel, 0 for ink.
    """

    contest: str
    kind: str
    source: Path
    target: Path

    @property
    def ink(self) -> Truth:
        """True where there is ink, [H, W]."""
        return np.asarray(Image.open(self.target).convert("L")) < 128


def pages_of(folder: Path) -> list[Page]:
    """The pages in ``folder``, in order.

    Raises:
        ValueError: if there are none.
    """
    found = []
    for source in sorted(folder.glob("*_source.*")):
        target = source.with_name(source.name.split("_source")[0] + "_target.png")
        name = _NAME.match(source.name)
        if name and target.exists():
            found.append(Page(name[1], name[2] or "", source, target))
    if not found:
        raise ValueError(f"{folder}: expected pages named as DIBCO2009_H01_source.jpg, found none")
    return found


def f_measure(found: Truth, ink: Truth) -> float:
    """Per cent: the harmonic mean of precision and recall of ink; 0 if there is none in either."""
    both = int((found & ink).sum())
    return 200 * both / max(int(found.sum()) + int(ink.sum()), 1)


def segmenter(model: Path, *, tile: bool = False) -> tuple[Segment, tuple[LabelClass, ...]]:
    """What a worker does for a request without options, or with ``mode=tile``; and the classes."""
    loaded = load_segmenter(model, threads=len(os.sched_getaffinity(0)))
    answer = Answer(("mask",), tile=tile)

    def segment(photo: bytes) -> Mask:
        (encoded,) = loaded.segment((Task("page", photo, answer),), _LIMITS)
        if not isinstance(encoded, Encoded):
            raise encoded
        return np.asarray(Image.open(io.BytesIO(next(iter(encoded.files.values())))))

    return segment, loaded.model.classes


def _asked(url: str) -> Segment:
    """Masks from the server at ``url``, which serves the same model."""

    def segment(photo: bytes) -> Mask:
        answer = httpx.post(f"{url}/segment", content=photo, headers={"Accept": "image/png"})
        answer.raise_for_status()
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    return segment


def judge(segment: Segment, classes: Sequence[LabelClass], pages: Iterable[Page]) -> dict[str, Any]:
    """Scores of every page, per contest and in the mean over contests, in per cent.

    ``called`` is which share of the ink found on pages of a kind has which class.
    """
    ids = {label.name: label.id for label in classes}
    inks = [ids[name] for name in INK if name in ids]
    rows: list[dict[str, Any]] = []
    counts = {kind: np.zeros(256, np.int64) for kind in "PH"}
    for page in pages:
        photo, ink = page.source.read_bytes(), page.ink
        mask = segment(photo)
        found = np.isin(mask, inks)
        right = int((found & ink).sum())
        grey = np.asarray(Image.open(io.BytesIO(photo)).convert("L"))
        binary = {
            "otsu": grey <= _LEVELS["otsu"](grey),
            "sauvola": grey <= _LEVELS["sauvola"](grey),
            "model": found,
        }
        rows.append(
            {
                "page": page.target.name.removesuffix("_target.png"),
                "contest": page.contest,
                **{way: _rounded(f_measure(ours, ink)) for way, ours in binary.items()},
                "recall": _rounded(100 * right / max(int(ink.sum()), 1)),
                "precision": _rounded(100 * right / max(int(found.sum()), 1)),
            }
        )
        if page.kind:
            counts[page.kind] += np.bincount(mask[found & ink], minlength=256)
    contests = sorted({row["contest"] for row in rows})
    means = {contest: {way: _mean(rows, way, contest) for way in WAYS} for contest in contests}
    return {
        "mean": {way: _rounded(mean(means[c][way] for c in contests)) for way in WAYS},
        "contests": means,
        "called": {
            kind: {
                label.name: _rounded(100 * found[label.id] / found.sum())
                for label in classes
                if label.id in inks
            }
            for kind, found in counts.items()
            if found.any()
        },
        "pages": rows,
    }


def _mean(rows: Sequence[Mapping[str, Any]], way: str, contest: str) -> float:
    return _rounded(mean(row[way] for row in rows if row["contest"] == contest))


def _rounded(value: float) -> float:
    return round(float(value), 2)


def _sheets() -> Iterator[tuple[str, Mask]]:
    """Sheets without a mark on them, of odd and even sizes."""
    for height, width in ((701, 500), (1000, 1415), (333, 250)):
        white = np.full((height, width, 3), 255.0)
        slope = np.linspace(1.0, 0.45, width)[None, :, None]
        edge = np.where(np.arange(width) < 0.6 * width, 1.0, 0.55)
        soft = cv2.GaussianBlur(edge[None].astype(np.float32), (0, 0), width / 40)[0, :, None]
        yellow = np.asarray((228, 208, 160)) / 255
        rng = np.random.default_rng(0)
        grain = rng.normal(0, 3, (height, width, 1))
        for name, sheet in {
            "white": white,
            "grey gradient": white * slope,
            "shadow": 0.92 * white * soft + grain,
            "yellow": white * yellow + grain,
        }.items():
            yield f"{name} {height} x {width}", np.clip(sheet, 0, 255).astype(np.uint8)


def _untouched(
    segment: Segment, classes: Sequence[LabelClass], photos: Sequence[Path]
) -> dict[str, Any]:
    """Share of blank sheets called paper and of photographs called picture, in per cent."""
    ids = {label.name: label.id for label in classes}

    def share(file: bytes, name: str) -> float:
        return _rounded(100 * float((segment(file) == ids[name]).mean()))

    def drawn(pixels: Mask) -> bytes:
        return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()

    return {
        "paper on blank sheets": {name: share(drawn(sheet), "paper") for name, sheet in _sheets()},
        "picture on photographs": {
            **{
                name: share(drawn(getattr(data, name)()), "picture")
                for name in ("astronaut", "coffee")
            },
            **{photo.name: share(photo.read_bytes(), "picture") for photo in photos},
        },
    }


def _photos_in(folder: Path) -> list[Path]:
    """Up to ``_PHOTOS`` of its photographs, evenly spaced in order of name."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix in {".jpg", ".png"}]
    if not files:
        raise typer.BadParameter(f"{folder}: expected JPEG or PNG files, found none")
    return files[:: max(1, len(files) // _PHOTOS)][:_PHOTOS]


def _rendered(segment: Segment, classes: Sequence[LabelClass]) -> dict[str, float]:
    """IoU of the ink of 10-point type on white, set by Pillow, by dots an inch, in per cent."""
    ids = [label.id for label in classes if label.name in INK]
    words = "The surveyor walked the whole length of the wall and found it sound, but for 2 places."
    scores = {}
    for dots in (72, 150, 300):
        height, width = 6 * dots, 5 * dots
        # Set four times as fine, so that a pixel's share of ink is known.
        fine = Image.new("L", (4 * width, 4 * height), 255)
        font = ImageFont.load_default(4 * dots * 10 / 72)
        draw = ImageDraw.Draw(fine)
        for line in range(22):
            text = " ".join(words.split()[line % 5 :][:11])
            draw.text((2 * dots, (2 + line) * dots), text, 0, font)
        page = np.asarray(fine.resize((width, height), Image.Resampling.BOX))
        file = cv2.imencode(".png", page)[1].tobytes()
        found, ink = np.isin(segment(file), ids), page < 128
        scores[f"{dots} dpi"] = _rounded(100 * float((found & ink).sum() / (found | ink).sum()))
    return scores


def _show(page: Page, segment: Segment, classes: Sequence[LabelClass], file: Path) -> None:
    """The photo, and the mask where it is right (black) or wrong: red too much, blue missed."""
    photo = np.asarray(Image.open(page.source).convert("RGB"))
    ids = {label.id for label in classes if label.name in INK}
    mask = segment(page.source.read_bytes())
    found, ink = np.isin(mask, list(ids)), page.ink
    judged = np.full_like(photo, 255)
    judged[found & ink] = 0
    judged[found & ~ink] = (220, 30, 30)
    judged[~found & ink] = (30, 80, 230)
    palette = np.asarray([label.rgb for label in classes], np.uint8)
    Image.fromarray(np.concatenate((photo, judged, palette[mask]))).save(file)


def main(
    model: Annotated[Path | None, typer.Option(help="Default: the model that ships.")] = None,
    folder: Annotated[Path | None, typer.Option(envvar="PPOOL_DIBCO", help="The pages.")] = None,
    photos: Annotated[
        Path | None, typer.Option(envvar="PPOOL_PHOTOS", help="Photographs without a page.")
    ] = None,
    tile: Annotated[bool, typer.Option(help="As with mode=tile.")] = False,
    url: Annotated[str | None, typer.Option(help="Ask this server instead.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the five worst pages.")] = None,
    store: Annotated[str | None, typer.Option(help="Name of the result to write.")] = None,
) -> None:
    """Measure and print; with ``--store`` write ``benchmarks/results/NAME.json``."""
    if folder is None:
        raise typer.BadParameter("name the folder of the pages, or set PPOOL_DIBCO")
    segment, classes = segmenter(model or shipped_model(), tile=tile)
    if url:
        segment = _asked(url)
    pages = pages_of(folder)
    scores = judge(segment, classes, pages)
    untouched = _untouched(segment, classes, _photos_in(photos) if photos else ())
    results = {**scores, **untouched, "rendered": _rendered(segment, classes)}
    console = Console()
    console.print(_table(scores))
    console.print(scores["called"], results["paper on blank sheets"])
    console.print(results["picture on photographs"], results["rendered"])
    worst = sorted(scores["pages"], key=lambda row: float(row["model"]))[:5]
    console.print("worst:", *(f"{row['page']} {row['model']}" for row in worst))
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        by_name = {page.target.name.removesuffix("_target.png"): page for page in pages}
        for row in worst:
            _show(by_name[row["page"]], segment, classes, pictures / f"{row['page']}.png")
    if store:
        asked = f" --model {model}" * (model is not None) + " --tile" * tile
        command = f"python -m benchmarks.pages{asked} --store {store}"
        console.print(f"wrote {write(store, command, results)}")


def _table(scores: Mapping[str, Any]) -> Table:
    table = Table("F-measure, %", "Otsu", "Sauvola", "model")
    rows = {**scores["contests"], "mean": scores["mean"]}
    for name, row in rows.items():
        table.add_row(name, *(f"{row[way]:.1f}" for way in ("otsu", "sauvola", "model")))
    return table


if __name__ == "__main__":
    typer.run(main)
