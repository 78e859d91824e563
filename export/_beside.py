"""What Hugging Face writes beside a network: ``preprocessor_config.json`` and ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from ppool.feeding import Channels, Normalisation
from ppool.metadata import Resample

__all__ = ["Beside", "read_beside"]

# The second holds the first where a processor has more parts than one.
PROCESSORS, CONFIG = ("preprocessor_config.json", "processor_config.json"), "config.json"
# Processors that never normalise, and those whose one number is the shorter side, not both.
PLAIN = ("MobileViT",)
# By Pillow's numbers, and those whose default is not bilinear.
RESAMPLES: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CUBIC = ("Beit", "Bit", "CLIP", "ConvNext", "DPT", "DeiT", "EfficientNet", "Levit", "MobileViT",
         "PoolFormer", "Pvt", "SegGpt")  # fmt: skip
SHORTER = ("MobileViT", "MobileNet", "ConvNext", "CLIP", "Bit", "Levit", "PoolFormer")


@dataclass(frozen=True)
class Beside:
    """What the files say; ``None`` and empty where they say nothing.

    Attributes:
        files: Those that were read.
        normalisation: What becomes of pixels.
        size: Height and width that photos are resized to.
        pad: Colour that what ``size`` leaves free is filled with, proportions being kept.
        min_side: Length of the shorter side that photos are resized to.
        max_side: Most that the longer one may be.
        multiple: What both sides are multiples of.
        rounds: Whether they are rounded to those, not padded.
        resample: How photos are resized.
        classes: Names in order.
        notes: What is done otherwise here, and why.
    """

    files: tuple[Path, ...] = ()
    normalisation: Normalisation | None = None
    size: tuple[int, int] | None = None
    pad: tuple[int, int, int] | None = None
    min_side: int | None = None
    max_side: int | None = None
    multiple: int | None = None
    rounds: bool = False
    resample: Resample = "bilinear"
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_beside(network: Path) -> Beside:
    """Look in the network's folder and, as published networks lie in ``onnx/``, the one above.

    Raises:
        ValueError: if there is such a file, and it makes no sense.
    """
    found: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for folder in (network.resolve().parent, network.resolve().parent.parent):
        for name in (*PROCESSORS, CONFIG):
            kind = CONFIG if name == CONFIG else PROCESSORS[0]
            path = folder / name
            if kind not in found and path.is_file():
                document = _document(path)
                document = document.get("image_processor", document)
                # Files of other programs have these names, too.
                if isinstance(document, Mapping) and _KNOWN & document.keys():
                    found[kind] = path, document
    _, processor = found.get(PROCESSORS[0], (None, {}))
    _, config = found.get(CONFIG, (None, {}))
    files = tuple(path for path, _ in found.values())
    try:
        return Beside(
            files,
            _normalisation(processor) if processor else None,
            classes=_classes(config),
            resample=_resample(processor),
            notes=_notes(processor),
            **_sizes(processor),
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        names = " and ".join(map(str, files))
        raise ValueError(f"{names}: cannot be understood: {error}") from error


_KNOWN = {"image_processor_type", "feature_extractor_type", "image_mean", "id2label"}


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _kind(processor: Mapping[str, Any]) -> str:
    keys = ("image_processor_type", "feature_extractor_type")
    return str(next((processor[key] for key in keys if processor.get(key)), ""))


def _on(processor: Mapping[str, Any], key: str, default: bool) -> bool:
    """A switch; ``null`` is its absence."""
    value = processor.get(key)
    return default if value is None else bool(value)


def _normalisation(processor: Mapping[str, Any]) -> Normalisation:
    """(value * rescale_factor - offset - mean) / std, each step where it is not switched off."""
    scaled = _on(processor, "do_rescale", True)
    factor = float(processor.get("rescale_factor") or 1 / 255) if scaled else 1.0
    offset = float(_on(processor, "rescale_offset", False) and scaled)
    mean, std = [0.0] * 3, [1.0] * 3
    normalises = _on(processor, "do_normalize", "image_mean" in processor)
    if normalises and not _kind(processor).startswith(PLAIN):
        mean, std = (
            [float(v) for v in row] if isinstance(row, list) else [float(row)] * 3
            for row in (processor["image_mean"], processor["image_std"])
        )
    grey = len(mean) == 1 or _on(processor, "do_convert_grayscale", False)
    if len(mean) not in {1, 3}:
        raise ValueError(f"image_mean of {len(mean)} channels, where photos have three")
    flips = _on(processor, "do_flip_channel_order", False)
    channels: Channels = "grey" if grey else "bgr" if flips else "rgb"
    if grey:
        mean, std = mean[:1], std[:1]
    if abs(factor * 255 - 1) < 1e-3 and not offset:
        return Normalisation(mean, std, channels, 1)
    return Normalisation(
        [(value + offset) / factor for value in mean], [v / factor for v in std], channels, 255
    )


def _sizes(processor: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a photo's height and width."""
    size, multiple = processor.get("size"), _multiple(processor)
    found: dict[str, Any] = {} if multiple is None else {"multiple": multiple}
    if not _on(processor, "do_resize", size is not None) or size is None:
        return found
    if isinstance(size, int):
        one_side = _kind(processor).startswith(SHORTER)
        size = {"shortest_edge": size} if one_side else {"height": size, "width": size}
    fitted = processor.get("pad_size") or {}
    if size.get("height") and size.get("width"):
        height, width = int(size["height"]), int(size["width"])
        rounds = int(processor.get("ensure_multiple_of") or 1)
        if _on(processor, "keep_aspect_ratio", False):
            if height != width:
                raise ValueError(f"size {size!r}, of which photos keep their own proportions")
            found |= {"min_side": height, "max_side": 4 * height}
            return found | ({"rounds": True} if rounds > 1 else {})
        return found | {"size": (_nearest(height, rounds), _nearest(width, rounds))}
    if size.get("shortest_edge"):
        shorter = int(size["shortest_edge"])
        longer = int(size.get("longest_edge") or 4 * shorter)
        return found | {"min_side": shorter, "max_side": longer}
    if size.get("longest_edge"):
        longest = int(size["longest_edge"])
        if _on(processor, "do_pad", False) and fitted:
            # Zeros behind the normalisation, that is the mean's colour before it.
            mean, _ = _normalisation(processor).of_bytes
            colour = tuple(round(value) for value in (mean * 3)[:3])
            box = int(fitted["height"]), int(fitted["width"])
            return found | {"size": box, "pad": colour}
        return found | {"max_side": longest}
    raise ValueError(f"size {size!r}")


def _nearest(side: int, multiple: int) -> int:
    return max(round(side / multiple), 1) * multiple


def _resample(processor: Mapping[str, Any]) -> Resample:
    number = processor.get("resample")
    if number is None:
        return "bicubic" if _kind(processor).startswith(CUBIC) else "bilinear"
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(RESAMPLES):
        raise ValueError(f"resample {number!r}")
    return RESAMPLES[number]


def _multiple(processor: Mapping[str, Any]) -> int | None:
    keys = ("size_divisor", "ensure_multiple_of", "size_divisibility")
    found = max(int(processor.get(key) or 1) for key in keys)
    return found if found > 1 else None


def _notes(processor: Mapping[str, Any]) -> tuple[str, ...]:
    if _on(processor, "do_center_crop", False):
        return ("no centre is cut out, so that the mask is of the whole photo",)
    return ()


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    labels = config.get("id2label") or {}
    named = {int(key): str(value) for key, value in labels.items()}
    return tuple(named[index] for index in takewhile(lambda index: index in named, count()))
