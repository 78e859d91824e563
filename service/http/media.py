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
from typing import Any, Literal

import orjson

from ppool.service.answers import Answer, Encoded, MapsWanted, Part, Picture
from ppool.service.http.classes import class_ids, overlapping
from ppool.service.http.options import SegmentOptions
from ppool.service.models import Model
from ppool.service.results import Milliseconds, SegmentReply
from ppool.service.timing import StageSeconds

__all__ = ["GEOJSON", "JSON", "MEDIA_TYPES", "NPZ", "PNG", "ZIP", "MediaType", "offers"]

# What is larger goes out from where it lies.
_APART_BYTES = 2**20

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
JSON, GEOJSON = "application/json", "application/geo+json"
NPZ, ZIP = "application/x-npz", "application/zip"


@dataclass(frozen=True)
class MediaType:
    """One form of answer.

    Attributes:
        description: What it holds, for the API's document.
        carries: Whether it can hold what is asked for.
        parts: What it is made of for each photo.
        assemble: The body in pieces, from what became of each photo.
        of_one_image: Whether it can hold no more than that.
        inline: Whether results carry the masks.
        exact: Whether it holds probabilities as numbers, not in grey.
        picture: What kind of file overlays and cut-outs are in it.
    """

    description: str
    carries: Callable[[SegmentOptions], bool]
    parts: Callable[[SegmentOptions], tuple[Part, ...]]
    assemble: Callable[[Sequence[Encoded]], list[bytes]]
    of_one_image: bool = False
    inline: bool = False
    exact: bool = False
    picture: Picture = "png"

    def answer(self, asked: SegmentOptions, model: Model) -> Answer:
        """What is wanted of each photo.

        Raises:
            BadRequest: if the model has not the classes that are asked for.
        """
        carries_mask = self.inline and (asked.answers is None or "mask" in asked.wanted)
        classes = None if asked.classes is None else class_ids("classes", asked.classes, model)
        cutout = () if asked.cutout is None else class_ids("cutout", asked.cutout, model)
        return Answer(
            self.parts(asked),
            asked.alpha,
            inline=asked.mask if carries_mask else None,
            tile=asked.mode == "tile",
            page=asked.page,
            maps=self._maps(asked, model, classes, cutout),
            classes=classes,
            cutout=cutout,
            tolerance=asked.tolerance,
            picture=self.picture,
            named=asked.answers is not None,
        )

    def _maps(
        self,
        asked: SegmentOptions,
        model: Model,
        classes: tuple[int, ...] | None,
        cutout: tuple[int, ...],
    ) -> MapsWanted:
        probability: tuple[int, ...] | None = None
        if asked.probability is not None:
            own = asked.probability == "winner"
            probability = () if own else class_ids("probability", asked.probability, model)
        planes = () if asked.planes is None else class_ids("planes", asked.planes, model)
        if not planes and _REGIONS.intersection(asked.wanted):
            planes = overlapping(model, classes)
        in_grey: Literal["uint8", "uint16"] = "uint16" if asked.bits == "16" else "uint8"
        # Where a model does not tell how probable a class is, the edges of cut-outs are hard.
        opacity = () if model.why_no_probability else cutout
        return MapsWanted(probability, planes, "float16" if self.exact else in_grey, opacity)


def offers(count: int, asked: SegmentOptions) -> tuple[str, ...]:
    """The media types that can carry such an answer for ``count`` images, best first."""
    several = (kind for kind in (ZIP, *MEDIA_TYPES) if not MEDIA_TYPES[kind].of_one_image)
    order = dict.fromkeys(several) if count > 1 else MEDIA_TYPES
    return tuple(kind for kind in order if MEDIA_TYPES[kind].carries(asked))


def _the_file(images: Sequence[Encoded]) -> list[bytes]:
    (content,) = images[0].files.values()
    return [content]


def _document(images: Sequence[Encoded]) -> list[bytes]:
    if any("coco.json" in image.files for image in images):
        return [_coco(images)]
    return [_results(images, inline=True)]


def _results(images: Sequence[Encoded], *, inline: bool = False) -> bytes:
    """The document of what was found; ``inline`` if polygons are in it."""
    results = []
    for image in images:
        if image.result:
            timed: Any = replace(image.result, timing_ms=_milliseconds(image.seconds))
            if inline and _POLYGONS in image.files:
                timed = replace(timed, polygons=orjson.Fragment(image.files[_POLYGONS]))
            results.append(timed)
    return orjson.dumps(SegmentReply(results))


def _coco(images: Sequence[Encoded]) -> bytes:
    """One COCO data set of those of all photos."""
    if len(images) == 1:
        return images[0].files["coco.json"]
    merged: dict[str, list[Any]] = {"images": [], "annotations": []}
    for number, image in enumerate(images, 1):
        found = orjson.loads(image.files["coco.json"])
        merged["images"] += [entry | {"id": number} for entry in found["images"]]
        for entry in found["annotations"]:
            number_of = {"id": len(merged["annotations"]) + 1, "image_id": number}
            merged["annotations"].append(entry | number_of)
    return orjson.dumps(merged | {"categories": found["categories"]})


def _milliseconds(seconds: StageSeconds) -> Milliseconds:
    queue, decode, infer, encode = (round(stage * 1e3, 3) for stage in seconds)
    return Milliseconds(decode=decode, queue=queue, infer=infer, encode=encode)


class _InPieces(io.BytesIO):
    """A file that keeps what is written apart, so that nothing large is copied.

    What is written where something begins takes its place, and has to be as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pieces: dict[int, bytes] = {}
        self._at = 0

    def write(self, data: Any) -> int:
        self.pieces[self._at] = data
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, _whence: int = 0) -> int:
        self._at = offset
        return offset


def _zip(images: Sequence[Encoded]) -> list[bytes]:
    file = _InPieces()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images, 1):
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", image.name.rsplit(".", 1)[0])[:64]
            for kind, content in image.files.items():
                if kind != "coco.json":
                    archive.writestr(f"{number:03d}-{stem}.{kind}", content)
        if "coco.json" in images[0].files:
            archive.writestr("coco.json", _coco(images))
        archive.writestr("result.json", _results(images))
    pieces = [*file.pieces.values()]
    return pieces if file.tell() > _APART_BYTES else [b"".join(pieces)]


def _is_one_picture(asked: SegmentOptions) -> bool:
    """Whether what is asked for is one picture, be it the mask or what takes its place."""
    if asked.alpha != "none" or asked.mask != "png" or len(asked.wanted) > 1:
        return False
    maps = {"probability": asked.probability, "planes": asked.planes}
    (part,) = asked.wanted
    names = maps.get(part) or ""
    return part not in _REGIONS and names != "all" and "," not in names


def _is_json(asked: SegmentOptions) -> bool:
    if asked.alpha == "full" or _PICTURES.intersection(asked.wanted):
        return False
    return "coco" not in asked.wanted or asked.wanted == ("coco",)


def _is_arrays(asked: SegmentOptions) -> bool:
    if asked.alpha == "maps" or asked.mask != "png":
        return False
    return not (_PICTURES | _REGIONS).intersection(asked.wanted)


def _in_json(asked: SegmentOptions) -> tuple[Part, ...]:
    of_regions = tuple(part for part in asked.wanted if part in _REGIONS)
    return of_regions if of_regions == ("coco",) else (*of_regions, "result")


def _in_zip(asked: SegmentOptions) -> tuple[Part, ...]:
    parts = asked.wanted
    if asked.answers is None and not {"mask", *_PICTURES}.intersection(parts):
        parts = ("mask", *parts)
    return (*parts, *(("arrays",) if asked.alpha == "full" else ()), "result")


_POLYGONS = "polygons.geojson"
_PICTURES = frozenset[Part](("overlay", "cutout"))
_REGIONS = frozenset[Part](("polygons", "components", "coco"))

MEDIA_TYPES = {
    PNG: MediaType(
        "the mask as a palette PNG, whose pixels are class ids (grey in 16 bits of over 256 "
        "classes), or the photo with `overlay=true`, or a `cutout` of it, or one `probability` or "
        "plane in grey",
        carries=_is_one_picture,
        parts=lambda asked: asked.wanted,
        assemble=_the_file,
        of_one_image=True,
    ),
    JPEG: MediaType(
        "the photo with `overlay=true`",
        carries=lambda asked: asked.wanted == ("overlay",) and _is_one_picture(asked),
        parts=lambda asked: asked.wanted,
        assemble=_the_file,
        of_one_image=True,
        picture="jpeg",
    ),
    WEBP: MediaType(
        "the photo with `overlay=true`, or a `cutout` of it",
        carries=lambda asked: asked.wanted[0] in _PICTURES and _is_one_picture(asked),
        parts=lambda asked: asked.wanted,
        assemble=_the_file,
        of_one_image=True,
        picture="webp",
    ),
    GEOJSON: MediaType(
        "with `answers=polygons`, the regions as a feature collection, in pixels",
        carries=lambda asked: asked.wanted == ("polygons",) and asked.alpha == "none",
        parts=lambda asked: asked.wanted,
        assemble=_the_file,
        of_one_image=True,
    ),
    JSON: MediaType(
        "the classes present, the mask, and a summary of alpha for each image, with probabilities, "
        "planes, polygons and components such as were asked for; or a COCO data set with "
        "`answers=coco`",
        carries=_is_json,
        parts=_in_json,
        assemble=_document,
        inline=True,
    ),
    NPZ: MediaType(
        "NumPy arrays: `mask`, and `alpha/<stage>` with `alpha=full`; `probability`, or "
        "`probability/<class>`, and `plane/<class>`",
        carries=_is_arrays,
        parts=lambda _: ("arrays",),
        assemble=_the_file,
        of_one_image=True,
        exact=True,
    ),
    ZIP: MediaType(
        "a file for each image and answer, and `result.json`",
        carries=lambda asked: asked.mask == "png",
        parts=_in_zip,
        assemble=_zip,
    ),
}
"""Every form of answer, best first for one image; for several a ZIP comes first."""
