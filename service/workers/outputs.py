"""Whether a network gives what its file says of it: a wrong mask is worse than none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import ModelMetadata, Stage, label_type
from ppool.runtime import LOGITS

__all__ = ["check_outputs"]


def check_outputs(
    about: ModelMetadata,
    images: tuple[int, ...],
    mask: tuple[int, ...],
    outputs: Mapping[str, NDArray[Any]],
) -> None:
    """Compare types, shapes and labels of a run with the description.

    Args:
        about: The description.
        images: The shape [N, H, W, 3] of what the network was given.
        mask: The height and width that masks were to have.
        outputs: By name.

    Raises:
        ValueError: naming the output, what was expected and what came.
    """
    stages = {stage.output: stage for stage in about.stages}
    count, height, width, _ = images
    for name, array in outputs.items():
        if stage := stages.get(name):
            _check_stage(stage, array, (count, height, width))
        elif name == LOGITS:
            expected = f"float32 [{count}, {len(about.classes)}, h, w]"
            fits = array.ndim == 4 and array.shape[:2] == (count, len(about.classes))
            _require(name, expected, array, fits=fits and array.dtype == np.float32)
        else:
            label = label_type(len(about.classes))
            fits = array.dtype == label and array.shape == (count, *mask)
            _require(name, f"{label} {[count, *mask]}", array, fits=fits)
            if array.size and (most := int(array.max())) >= len(about.classes):
                raise ValueError(
                    f"output {name!r}: expected labels below {len(about.classes)}, as many as the "
                    f"file describes classes, got {most}"
                )


def _check_stage(stage: Stage, array: NDArray[Any], images: tuple[int, int, int]) -> None:
    if stage.stride < 1:
        raise ValueError(f"stage {stage.name}: expected a stride of at least 1, got {stage.stride}")
    count, *sides = images
    full = [-(-side // stage.stride) for side in sides]
    fits = (
        array.dtype == np.float32
        and array.ndim == 4
        and array.shape[:2] == (count, stage.channels)
        # Without padding a pooling leaves out what is no whole window.
        and all(most - had in (0, 1) for most, had in zip(full, array.shape[2:], strict=True))
    )
    expected = f"float32 {[count, stage.channels, *full]}, for a stride of {stage.stride}"
    _require(stage.output, expected, array, fits=fits)


def _require(name: str, expected: str, array: NDArray[Any], *, fits: bool) -> None:
    if not fits:
        raise ValueError(
            f"output {name!r}: expected {expected}, got {array.dtype} {list(array.shape)}; export "
            "the network again, or correct what the file says of it"
        )
