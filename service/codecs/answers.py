"""What a client can be answered with, and the answer from the share of each photo."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from ppool.service.codecs.results import (
    ImageResult,
    Milliseconds,
    SegmentReply,
)
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
    "assemble",
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


def _zip(parts: Sequence[Encoded], document: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, part in enumerate(parts, 1):
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", part.name.rsplit(".", 1)[0])[:64]
            for kind, content in part.files.items():
                archive.writestr(f"{number:03d}-{stem}.{kind}", content)
        archive.writestr("result.json", document)
    return file.getvalue()
