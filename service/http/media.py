"""What can be asked for, and every form of answer: offered, made, put together, documented.

A new form of answer is an entry of :data:`MEDIA_TYPES`; if it holds something that no other does,
that is a further ``Part``, which :mod:`ppool.service.codecs.encoding` makes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson
from pydantic import BaseModel, Field

from ppool.service.answers import Alpha, Answer, Encoded, Part
from ppool.service.results import Milliseconds, SegmentReply
from ppool.service.timing import StageSeconds

__all__ = ["JSON", "MEDIA_TYPES", "NPZ", "PNG", "ZIP", "MediaType", "SegmentOptions", "offers"]

PNG, JSON, NPZ, ZIP = "image/png", "application/json", "application/x-npz", "application/zip"


class SegmentOptions(BaseModel, extra="forbid"):
    """The options of ``POST /segment``, in the query or as fields of a form."""

    model: str | None = Field(None, description="name of a loaded model; the first by default")
    alpha: Alpha = Field(
        "none",
        description="the pooling exponents: a summary and a picture of each stage (JSON, ZIP), "
        "or all of them as float16 (NPZ, ZIP)",
    )
    overlay: bool = Field(False, description="blend the class colours over the photo (PNG, ZIP)")
    mode: Literal["resize", "tile"] = Field(
        "resize",
        description="what becomes of a photo larger than the model's input: made smaller, or "
        "segmented at full resolution in overlapping windows, which takes longer (no alpha)",
    )
    page: int = Field(
        1,
        ge=1,
        le=4096,
        description="page of a TIFF, or frame of an animation; X-Pages and `pages` say how many",
    )
    mask: Literal["png", "rle"] = Field("png", description="how the JSON answer carries the mask")


@dataclass(frozen=True)
class MediaType:
    """One form of answer.

    Attributes:
        description: What it holds, for the API's document.
        carries: Whether it can hold what is asked for.
        parts: What it is made of for each photo.
        assemble: The body, from what became of each photo.
        of_one_image: Whether it can hold no more than that.
        inline: Whether results carry the masks.
    """

    description: str
    carries: Callable[[SegmentOptions], bool]
    parts: Callable[[SegmentOptions], tuple[Part, ...]]
    assemble: Callable[[Sequence[Encoded]], bytes]
    of_one_image: bool = False
    inline: bool = False

    def answer(self, asked: SegmentOptions) -> Answer:
        """What is wanted of each photo."""
        return Answer(
            self.parts(asked),
            asked.alpha,
            inline=asked.mask if self.inline else None,
            tile=asked.mode == "tile",
            page=asked.page,
        )


def offers(count: int, asked: SegmentOptions) -> tuple[str, ...]:
    """The media types that can carry such an answer for ``count`` images, best first."""
    several = (kind for kind in (ZIP, *MEDIA_TYPES) if not MEDIA_TYPES[kind].of_one_image)
    order = dict.fromkeys(several) if count > 1 else MEDIA_TYPES
    return tuple(kind for kind in order if MEDIA_TYPES[kind].carries(asked))


def _the_file(images: Sequence[Encoded]) -> bytes:
    (content,) = images[0].files.values()
    return content


def _document(images: Sequence[Encoded]) -> bytes:
    results = [
        replace(image.result, timing_ms=_milliseconds(image.seconds))
        for image in images
        if image.result
    ]
    return orjson.dumps(SegmentReply(results))


def _milliseconds(seconds: StageSeconds) -> Milliseconds:
    queue, decode, infer, encode = (round(stage * 1e3, 3) for stage in seconds)
    return Milliseconds(decode=decode, queue=queue, infer=infer, encode=encode)


def _zip(images: Sequence[Encoded]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images, 1):
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", image.name.rsplit(".", 1)[0])[:64]
            for kind, content in image.files.items():
                archive.writestr(f"{number:03d}-{stem}.{kind}", content)
        archive.writestr("result.json", _document(images))
    return file.getvalue()


def _picture(asked: SegmentOptions) -> Part:
    return "overlay" if asked.overlay else "mask"


MEDIA_TYPES = {
    PNG: MediaType(
        "the mask as a palette PNG, whose pixels are class ids, or the photo with `overlay=true`",
        carries=lambda asked: asked.alpha == "none" and asked.mask == "png",
        parts=lambda asked: (_picture(asked),),
        assemble=_the_file,
        of_one_image=True,
    ),
    JSON: MediaType(
        "the classes present, the mask, and a summary of alpha for each image",
        carries=lambda asked: asked.alpha != "full" and not asked.overlay,
        parts=lambda _: ("result",),
        assemble=_document,
        inline=True,
    ),
    NPZ: MediaType(
        "NumPy arrays: `mask`, and `alpha/<stage>` with `alpha=full`",
        carries=lambda asked: asked.alpha != "maps" and not asked.overlay and asked.mask == "png",
        parts=lambda _: ("arrays",),
        assemble=_the_file,
        of_one_image=True,
    ),
    ZIP: MediaType(
        "a file or two for each image, and `result.json`",
        carries=lambda asked: asked.mask == "png",
        parts=lambda asked: (
            (_picture(asked), "arrays", "result")
            if asked.alpha == "full"
            else (_picture(asked), "result")
        ),
        assemble=_zip,
    ),
}
"""Every form of answer, best first for one image; for several a ZIP comes first."""
