"""What was found in a photo to its share of the answer; this is done in a worker."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppool.feeding import resized_labels
from ppool.service.answers import Answer, Encoded, Part
from ppool.service.codecs.images import Keep
from ppool.service.codecs.pictures import blended, cut_out, picture
from ppool.service.codecs.png import png
from ppool.service.codecs.probability import OWN, WHITE, Maps
from ppool.service.codecs.regions import brush_files, outline_files, score_files
from ppool.service.codecs.rle import coco_rle, plane_rle
from ppool.service.models import Model
from ppool.service.results import (
    AlphaMap,
    ClassArea,
    ImageResult,
    Milliseconds,
    Plane,
    PngMask,
    ProbabilityMap,
    RleMask,
)

__all__ = ["Segmentation", "encode"]


@dataclass(frozen=True)
class Segmentation:
    """What the network found in one photo, at the network's resolution.

    Attributes:
        model: The model that found it.
        width: Of the upright photo, in pixels.
        height: Of the upright photo, in pixels.
        mask: Class ids, [h, w]; the whole photo, reduced to the model's input policy.
        alpha: Pooling exponents by stage name, float32 [C, h, w]; empty unless asked for.
        pages: How many pages or frames the file has.
        photo: Uint8 [height, width, C], in the forms that the answer shows: RGB, or RGBA.
        profile: The ICC profile of the colours that are as the file has them.
        maps: At the photo's size, such as the answer has.
    """

    model: Model
    width: int
    height: int
    mask: NDArray[Any]
    alpha: Mapping[str, NDArray[np.float32]]
    pages: int = 1
    photo: Mapping[Keep, NDArray[np.uint8]] = field(default_factory=dict)
    profile: bytes = b""
    maps: Maps = field(default_factory=Maps)


_OF_REGIONS = frozenset[Part](("polygons", "components", "coco"))

# Until the whole journey is over.
_UNTIMED = Milliseconds(decode=0, queue=0, infer=0, encode=0)


def encode(segmentation: Segmentation, name: str, answer: Answer) -> Encoded:
    """Make what is wanted of the photo called ``name``."""
    mask = resized_labels(segmentation.mask, segmentation.height, segmentation.width)
    if answer.classes is not None:
        mask = only(mask, answer.classes, len(segmentation.model.classes))
    files: dict[str, bytes] = {}
    for part in answer.parts:
        for kind, content in (
            FILES[part](segmentation, mask, answer).items() if part in FILES else ()
        ):
            # Two parts may both be a PNG.
            tells = part == "tensors" or kind.startswith(part)
            is_told = tells or not (answer.named or kind in files)
            files[kind if is_told else f"{part}.{kind}"] = content
    result = None
    if "result" in answer.parts:
        result = _result(segmentation, mask, name, answer)
    if not _OF_REGIONS.isdisjoint(answer.parts):
        files, result = _with_regions(segmentation, mask, answer, Encoded(name, files, 1, result))
    return Encoded(name, files, segmentation.pages, result)


def _with_regions(
    segmentation: Segmentation, mask: NDArray[Any], answer: Answer, made: Encoded
) -> tuple[dict[str, bytes], ImageResult | None]:
    """The files and the result of ``made``, with what tells where regions are."""
    # GEOS takes a while, and memory.
    import orjson

    from ppool.service.codecs import shapes

    classes, files, result = segmentation.model.classes, dict(made.files), made.result
    found = shapes.regions(mask, segmentation.maps.planes, classes, answer.classes)
    if "polygons" in answer.parts:
        files["polygons.geojson"] = shapes.features(found, answer.tolerance)
    if "coco" in answer.parts:
        photo = made.name, segmentation.height, segmentation.width
        files["coco.json"] = shapes.coco(found, answer.tolerance, photo, classes)
    if "components" in answer.parts:
        listed = shapes.components(found)
        if result is None:
            files["components.json"] = orjson.dumps(listed)
        else:
            result = replace(result, components=listed)
    return files, result


def _result(
    segmentation: Segmentation, mask: NDArray[Any], name: str, answer: Answer
) -> ImageResult:
    alphas = segmentation.alpha.items()
    return ImageResult(
        name=name,
        width=segmentation.width,
        height=segmentation.height,
        pages=segmentation.pages,
        model=segmentation.model.name,
        classes=_areas(segmentation, mask),
        mask=_inlined(mask, segmentation.model.palette, answer),
        alpha=[_alpha_map(*stage) for stage in alphas] if answer.alpha == "maps" else None,
        timing_ms=_UNTIMED,
        probability=_probabilities(segmentation, answer),
        planes=_planes(segmentation, answer),
    )


def only(mask: NDArray[Any], classes: Sequence[int], count: int) -> NDArray[Any]:
    """The mask, [H, W], with the largest number of its type wherever it has other classes.

    Args:
        mask: Class ids.
        classes: Those to leave.
        count: How many the model has; of 256, each number of 8 bits is one, so it becomes 16.
    """
    kind = mask.dtype if count <= np.iinfo(mask.dtype).max else np.dtype(np.uint16)
    kept = np.full(count, np.iinfo(kind).max, kind)
    kept[list(classes)] = classes
    found: NDArray[Any] = kept[mask]
    return found


def _mask(segmentation: Segmentation, mask: NDArray[Any], answer: Answer) -> dict[str, bytes]:
    clear = answer.classes is not None
    return {"png": png(mask, segmentation.model.palette, has_none=clear)}


def _overlay(segmentation: Segmentation, mask: NDArray[Any], answer: Answer) -> dict[str, bytes]:
    over = blended(segmentation.photo["seen"], mask, segmentation.model.palette)
    return {answer.picture: picture(over, answer.picture)}


def _cutout(segmentation: Segmentation, mask: NDArray[Any], answer: Answer) -> dict[str, bytes]:
    alpha = segmentation.maps.opacity
    if alpha is None:
        alpha = np.isin(mask, answer.cutout) * np.uint8(255)
    cut = cut_out(segmentation.photo["straight"], alpha)
    return {answer.picture: picture(cut, answer.picture, segmentation.profile)}


def _name_of(key: int, model: Model) -> str:
    """The part of a file's name that tells a map; classes have any characters in theirs."""
    if key == OWN:
        return ""
    return f"-{key}-" + re.sub(r"[^A-Za-z0-9_-]+", "_", model.classes[key].name)[:64]


def _probability(segmentation: Segmentation, _: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    maps = segmentation.maps.probability
    return {
        f"probability{_name_of(key, segmentation.model)}.png": png(values)
        for key, values in maps.items()
    }


def _plane_files(segmentation: Segmentation, _: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    return {
        f"plane{_name_of(key, segmentation.model)}.png": png(plane * np.uint8(255))
        for key, plane in segmentation.maps.planes.items()
    }


def _named(segmentation: Segmentation) -> dict[str, NDArray[Any]]:
    """Maps by the name that arrays have."""
    names, maps = segmentation.model.class_names, segmentation.maps
    arrays: dict[str, NDArray[Any]] = {}
    for key, values in maps.probability.items():
        arrays["probability" if key == OWN else f"probability/{names[key]}"] = values
    return arrays | {f"plane/{names[key]}": plane for key, plane in maps.planes.items()}


def _tensors(segmentation: Segmentation, mask: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    arrays: dict[str, NDArray[Any]] = {"mask": mask}
    arrays |= {f"alpha/{stage}": values for stage, values in segmentation.alpha.items()}
    arrays |= _named(segmentation)
    return {name: _npy(array) for name, array in arrays.items()}


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _arrays(segmentation: Segmentation, mask: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    arrays: dict[str, NDArray[Any]] = {"mask": mask}
    for stage, values in segmentation.alpha.items():
        arrays[f"alpha/{stage}"] = values.astype(np.float16)
    arrays |= _named(segmentation)
    file = io.BytesIO()
    # As numpy.savez_compressed, but at the level that takes a fifth of the time.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return {"npz": file.getvalue()}


def _brush(segmentation: Segmentation, _: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    return brush_files(segmentation.maps.planes) | score_files(segmentation.maps)


def _outlines(segmentation: Segmentation, _: NDArray[Any], _answer: Answer) -> dict[str, bytes]:
    return outline_files(segmentation.maps.planes) | score_files(segmentation.maps)


def _areas(segmentation: Segmentation, mask: NDArray[Any]) -> list[ClassArea]:
    total = segmentation.width * segmentation.height
    counts = Image.fromarray(mask).histogram() if mask.dtype == np.uint8 else _counts(mask)
    return [
        ClassArea(label.id, label.name, label.color, count, round(count / total, 6))
        for label, count in zip(segmentation.model.classes, counts, strict=False)
        if count
    ]


def _counts(mask: NDArray[Any]) -> list[int]:
    counts: list[int] = np.bincount(mask.ravel()).tolist()
    return counts


def _probabilities(segmentation: Segmentation, answer: Answer) -> list[ProbabilityMap] | None:
    if answer.maps.probability is None:
        return None
    classes = segmentation.model.classes
    found = []
    for key, values in segmentation.maps.probability.items():
        mean = round(float(values.mean(dtype=np.float64)) / WHITE[str(values.dtype)], 6)
        data = _base64(png(values)) if answer.inline else None
        name = None if key == OWN else classes[key].name
        found.append(ProbabilityMap(None if key == OWN else key, name, mean, data))
    return found


def _planes(segmentation: Segmentation, answer: Answer) -> list[Plane] | None:
    if not answer.maps.planes:
        return None
    classes, found = segmentation.model.classes, []
    for key, plane in segmentation.maps.planes.items():
        label, count = classes[key], int(np.count_nonzero(plane))
        mask: PngMask | RleMask | None = None
        if answer.inline == "png":
            mask = PngMask("png", _base64(png(plane * np.uint8(255))))
        elif answer.inline == "rle":
            size = plane.shape[0], plane.shape[1]
            mask = RleMask("coco_rle", size, {str(key): plane_rle(plane)})
        share = round(count / plane.size, 6)
        found.append(Plane(label.id, label.name, label.color, count, share, mask))
    return found


def _inlined(mask: NDArray[Any], palette: bytes, answer: Answer) -> PngMask | RleMask | None:
    if answer.inline == "png":
        clear = answer.classes is not None
        return PngMask("png", _base64(png(mask, palette, has_none=clear)))
    if answer.inline == "rle":
        runs, known = coco_rle(mask), len(palette) // 3
        counts = {str(label): text for label, text in runs.items() if label < known}
        return RleMask("coco_rle", (mask.shape[0], mask.shape[1]), counts)
    return None


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


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


FILES: dict[Part, Callable[[Segmentation, NDArray[Any], Answer], dict[str, bytes]]] = {
    "mask": _mask,
    "overlay": _overlay,
    "cutout": _cutout,
    "probability": _probability,
    "planes": _plane_files,
    "arrays": _arrays,
    "tensors": _tensors,
    "brush": _brush,
    "outlines": _outlines,
}
"""Makes the files of a part, by extension, of what was found and the mask at the photo's size."""
