"""What Hugging Face writes beside a network: ``preprocessor_config.json`` and ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppool.feeding import Channels, Normalisation

__all__ = ["Beside", "read_beside"]

PROCESSOR, CONFIG = "preprocessor_config.json", "config.json"


@dataclass(frozen=True)
class Beside:
    """What the files say; ``None`` and empty where they say nothing.

    Attributes:
        files: Those that were read.
        normalisation: What becomes of pixels.
        size: Height and width that photos are resized to.
        min_side: Length of the shorter side that photos are resized to.
        classes: Names in order.
    """

    files: tuple[Path, ...] = ()
    normalisation: Normalisation | None = None
    size: tuple[int, int] | None = None
    min_side: int | None = None
    classes: tuple[str, ...] = ()


def read_beside(network: Path) -> Beside:
    """Look in the network's folder and, as published networks lie in ``onnx/``, the one above.

    Raises:
        ValueError: if there is such a file, and it makes no sense.
    """
    found: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for folder in (network.resolve().parent, network.resolve().parent.parent):
        for name in (PROCESSOR, CONFIG):
            path = folder / name
            if name not in found and path.is_file():
                document = _document(path)
                # Files of other programs have these names, too.
                if {"image_processor_type", "image_mean", "id2label"} & document.keys():
                    found[name] = path, document
    _, processor = found.get(PROCESSOR, (None, {}))
    _, config = found.get(CONFIG, (None, {}))
    try:
        size, min_side = _size(processor)
        return Beside(
            tuple(path for path, _ in found.values()),
            _normalisation(processor) if processor else None,
            size,
            min_side,
            _classes(config),
        )
    except (TypeError, ValueError, KeyError) as error:
        names = " and ".join(str(path) for path, _ in found.values())
        raise ValueError(f"{names}: cannot be understood: {error}") from error


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _normalisation(processor: Mapping[str, Any]) -> Normalisation:
    """(value * rescale_factor - mean) / std, each step where it is not switched off."""
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize", "image_mean" in processor):
        mean = processor.get("image_mean", mean)
        std = processor.get("image_std", std)
        mean, std = (
            [float(part) for part in (row if isinstance(row, list) else [row])]
            for row in (mean, std)
        )
    grey = len(mean) == 1
    flips = processor.get("do_flip_channel_order") is True
    channels: Channels = "grey" if grey else "bgr" if flips else "rgb"
    if abs(factor * 255 - 1) < 1e-3:
        return Normalisation(mean, std, channels, 1)
    return Normalisation(
        [value / factor for value in mean], [value / factor for value in std], channels, 255
    )


def _size(processor: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int | None]:
    size = processor.get("size")
    if not processor.get("do_resize", size is not None) or size is None:
        return None, None
    if isinstance(size, int):
        return (size, size), None
    if "height" in size:
        return (int(size["height"]), int(size["width"])), None
    if "shortest_edge" in size:
        return None, int(size["shortest_edge"])
    return None, None


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    labels = config.get("id2label") or {}
    named = {int(key): str(value) for key, value in labels.items()}
    return tuple(named[index] for index in range(len(named)))
