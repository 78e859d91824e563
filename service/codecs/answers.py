"""Segmentations to bytes: palette PNG, overlay, JSON, NPZ and ZIP."""

from __future__ import annotations

import base64
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from ppool.feeding import resized_labels
from ppool.service.codecs.images import strips
from ppool.service.codecs.png import png
from ppool.service.codecs.results import (
    AlphaMap,
    ClassArea,
    ImageResult,
    Milliseconds,
    PngMask,
    RleMask,
    SegmentReply,
)
from ppool.service.codecs.rle import coco_rle
from ppool.service.models import Model
from ppool.service.timing import StageSeconds

__all__ = [
    "JSON",
    "MEDIA_TYPES",
    "NPZ",
    "PNG",
    "TENSORS",
    "ZIP",
    "Answer",
    "Encoded",
    "Segmentation",
    "assemble",
    "encode",
    "offers",
]

PNG, JSON, NPZ, ZIP = "image/png", "application/json", "application/x-npz", "application/zip"
# For the Open Inference Protocol alone: every array as an NPY file.
TENSORS = "tensors"

Alpha = Literal["none", "maps", "full"]


@dataclass(frozen=True)
class MediaType:
    """One form of answer.

    Attributes:
        description: What it holds, for the API's document.
        carries: Whether it can hold what was asked for: alpha, an overlay, run lengths.
        of_one_image: Whether it can hold no more than that.
    """

    description: str
    carries: Callable[[Alpha, bool, bool], bool]
    of_one_image: bool = False


MEDIA_TYPES = {
    PNG: MediaType(
        "the mask as a palette PNG, whose pixels are class ids, or the photo with `overlay=true`",
        lambda alpha, overlay, rle: alpha == "none" and not rle,
        of_one_image=True,
    ),
    JSON: MediaType(
        "the classes present, the mask, and a summary of alpha for each image",
        lambda alpha, overlay, rle: alpha != "full" and not overlay,
    ),
    NPZ: MediaType(
        "NumPy arrays: `mask`, and `alpha/<stage>` with `alpha=full`",
        lambda alpha, overlay, rle: alpha != "maps" and not overlay and not rle,
        of_one_image=True,
    ),
    ZIP: MediaType(
        "a file or two for each image, and `result.json`", lambda alpha, overlay, rle: not rle
    ),
}
"""Every form of answer, best first for one image."""


@dataclass(frozen=True)
class Answer:
    """What the client wants back."""

    media: str
    alpha: Alpha
    overlay: bool
    rle: bool
    tile: bool = False
    page: int = 1

    @property
    def shows_photo(self) -> bool:
        """Whether the photo's own pixels are needed for it."""
        return self.overlay and self.media in (PNG, ZIP)


@dataclass(frozen=True)
class Segmentation:
    """What the network found in one photo, at the network's resolution.

    Attributes:
        model: The model that found it.
        width: Of the upright photo, in pixels.
        height: Of the upright photo, in pixels.
        mask: Class ids, uint8 [h, w]; the whole photo, reduced to the model's input policy.
        alpha: Pooling exponents by stage name, float32 [C, h, w]; empty unless asked for.
        pages: How many pages or frames the file has.
        photo: RGB, uint8 [height, width, 3], where the answer shows it.
    """

    model: Model
    width: int
    height: int
    mask: NDArray[np.uint8]
    alpha: Mapping[str, NDArray[np.float32]]
    pages: int = 1
    photo: NDArray[np.uint8] | None = None


_UNTIMED_STAGES = StageSeconds()


@dataclass(frozen=True)
class Encoded:
    """One image's share of the answer: files by extension, and JSON where the answer has any."""

    name: str
    files: Mapping[str, bytes]
    pages: int = 1
    result: ImageResult | None = None
    seconds: StageSeconds = _UNTIMED_STAGES

    def __reduce__(self) -> tuple[Any, ...]:
        """Files are sent from where they lie; see :mod:`ppool.service.workers.messages`."""
        files = {kind: pickle.PickleBuffer(content) for kind, content in self.files.items()}
        return Encoded, (self.name, files, self.pages, self.result, self.seconds)


def offers(count: int, alpha: Alpha, *, overlay: bool, rle: bool) -> tuple[str, ...]:
    """The media types that can carry such an answer for ``count`` images, best first."""
    order = (ZIP, JSON, PNG, NPZ) if count > 1 else tuple(MEDIA_TYPES)
    able = {kind for kind, media in MEDIA_TYPES.items() if media.carries(alpha, overlay, rle)}
    if count > 1:
        able -= {kind for kind, media in MEDIA_TYPES.items() if media.of_one_image}
    return tuple(kind for kind in order if kind in able)


# Until the whole journey is over.
_UNTIMED = Milliseconds(decode=0, queue=0, infer=0, encode=0)


def encode(segmentation: Segmentation, name: str, answer: Answer) -> Encoded:
    """Encode what was found in the photo called ``name``."""
    mask = resized_labels(segmentation.mask, segmentation.height, segmentation.width)
    palette, media, files = segmentation.model.palette, answer.media, {}
    if media == TENSORS:
        alphas = {f"alpha/{stage}": values for stage, values in segmentation.alpha.items()}
        tensors: dict[str, NDArray[Any]] = {"mask": mask, **alphas}
        files = {name: _npy(array) for name, array in tensors.items()}
        return Encoded(name, files, segmentation.pages)
    if media in (PNG, ZIP):
        photo = segmentation.photo
        files["png"] = png(mask, palette) if photo is None else _overlay(photo, mask, palette)
    if media == NPZ or (media == ZIP and answer.alpha == "full"):
        files["npz"] = _npz(mask, segmentation.alpha)
    if media in (PNG, NPZ):
        return Encoded(name, files, segmentation.pages)
    maps = answer.alpha == "maps"
    result = ImageResult(
        name=name,
        width=segmentation.width,
        height=segmentation.height,
        pages=segmentation.pages,
        model=segmentation.model.name,
        classes=_areas(segmentation, mask),
        mask=_json_mask(mask, palette, rle=answer.rle) if media == JSON else None,
        alpha=[_alpha_map(*entry) for entry in segmentation.alpha.items()] if maps else None,
        timing_ms=_UNTIMED,
    )
    return Encoded(name, files, segmentation.pages, result)


def assemble(parts: Sequence[Encoded], media: str) -> bytes:
    """The body of the answer from the share of each image."""
    if media in (PNG, NPZ):
        (content,) = parts[0].files.values()
        return content
    results = [
        replace(part.result, timing_ms=_milliseconds(part.seconds)) for part in parts if part.result
    ]
    document = orjson.dumps(SegmentReply(results))
    return document if media == JSON else _zip(parts, document)


def _milliseconds(seconds: StageSeconds) -> Milliseconds:
    queue, decode, infer, encode = (round(stage * 1e3, 3) for stage in seconds)
    return Milliseconds(decode=decode, queue=queue, infer=infer, encode=encode)


def _overlay(photo: NDArray[np.uint8], mask: NDArray[np.uint8], palette: bytes) -> bytes:
    blended = np.empty_like(photo)
    # In strips: whole, what lies in between takes 12 bytes a pixel, and four times as long.
    for rows in strips(len(photo)):
        colours = Image.fromarray(mask[rows])
        colours.putpalette(palette)
        strip = Image.blend(Image.fromarray(photo[rows]), colours.convert("RGB"), 0.5)
        blended[rows] = np.asarray(strip)
    return png(blended)


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _npz(mask: NDArray[np.uint8], alpha: Mapping[str, NDArray[np.float32]]) -> bytes:
    arrays: dict[str, NDArray[Any]] = {"mask": mask}
    arrays |= {f"alpha/{stage}": values.astype(np.float16) for stage, values in alpha.items()}
    file = io.BytesIO()
    # As numpy.savez_compressed, but at the level that takes a fifth of the time.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return file.getvalue()


def _areas(segmentation: Segmentation, mask: NDArray[np.uint8]) -> list[ClassArea]:
    total = segmentation.width * segmentation.height
    counts = Image.fromarray(mask).histogram()
    return [
        ClassArea(label.id, label.name, label.color, count, round(count / total, 6))
        for label, count in zip(segmentation.model.metadata.classes, counts, strict=False)
        if count
    ]


def _json_mask(mask: NDArray[np.uint8], palette: bytes, *, rle: bool) -> PngMask | RleMask:
    if not rle:
        return PngMask("png", _base64(png(mask, palette)))
    counts = {str(label): text for label, text in coco_rle(mask).items()}
    return RleMask("coco_rle", (mask.shape[0], mask.shape[1]), counts)


def _alpha_map(stage: str, values: NDArray[np.float32]) -> AlphaMap:
    """Summary of one stage's exponents, float32 [C, h, w]."""
    channels, height, width = values.shape
    plane = values.mean(axis=0)
    low, high = float(plane.min()), float(plane.max())
    scale = 255 / (high - low) if high > low else 0.0
    grey = ((plane - low) * scale).round().astype(np.uint8)
    return AlphaMap(
        stage=stage,
        shape=(channels, height, width),
        min=float(values.min()),
        max=float(values.max()),
        mean=float(values.mean()),
        channel_mean=values.mean(axis=(1, 2)).tolist(),
        map=_base64(png(grey)),
        map_min=low,
        map_max=high,
    )


def _zip(parts: Sequence[Encoded], document: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, part in enumerate(parts, 1):
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", part.name.rsplit(".", 1)[0])[:64]
            for kind, content in part.files.items():
                archive.writestr(f"{number:03d}-{stem}.{kind}", content)
        archive.writestr("result.json", document)
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
