"""``export_model``: any PyTorch network to one self-describing ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppool.export._assemble import assemble, cast_to_logits, on_pixel_grid
from ppool.export._describe import with_colours
from ppool.export._files import refuse_to_overwrite, save_whole
from ppool.export._trace import Pipeline, trace
from ppool.export._verify import verify
from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass, ModelMetadata
from ppool.models import Checkpoint
from ppool.onnx_ops import DOMAIN, ONNX_OPSET, OPSET

__all__ = ["export_checkpoint", "export_model"]


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    classes: Sequence[str | LabelClass],
    mean: Sequence[float],
    std: Sequence[float],
    max_side: int = 1024,
    multiple: int = 32,
    name: str | None = None,
    training: Mapping[str, Any] | None = None,
    check: bool = True,
) -> ModelMetadata:
    """Export a segmentation network to an ONNX file that ``ppool serve`` serves.

    Every :class:`ppool.PPool2d` inside becomes one ``PPoolUnit`` with an alpha map as an extra
    output. The model itself is left as it is.

    Shape:
        ``model`` maps normalised RGB, float32 [N, 3, H, W], to logits [N, K, h, w] at any stride.
        The file maps ``image``, uint8 [N, H, W, 3], to ``mask``, uint8 [N, H, W].

    Args:
        model: The network.
        path: Where the file goes; it appears there whole or not at all.
        classes: The K classes in the order of the logits; plain names get colours.
        mean: Of RGB in [0, 1], as in training.
        std: Likewise.
        max_side: Longer images are to be resized to this many pixels.
        multiple: Heights and widths are to be padded to multiples of this many pixels.
        name: What the model is served as; ``None`` is the file's name without suffix.
        training: A record to travel in the file: data, seed, scores.
        check: Compare with PyTorch, with native kernels and without, before the file appears.

    Returns:
        What the file says of itself.

    Raises:
        ValueError: if classes or sizes do not fit the network.
        ppool.export.VerificationError: if the file and the network disagree.
    """
    path = Path(path)
    description = ModelMetadata(
        name=path.stem if name is None else name,
        network=type(model).__name__,
        classes=with_colours(classes),
        input=InputPolicy(max_side, multiple),
        stages=(),
        training=dict(training or {}),
        versions=_versions(),
    )
    return _export(model, path, description, Normalisation(mean, std), check)


def export_checkpoint(
    checkpoint: str | Path,
    path: str | Path,
    *,
    name: str | None = None,
    max_side: int | None = None,
    check: bool = True,
) -> ModelMetadata:
    """Export a checkpoint written by ``ppool train``.

    Args:
        checkpoint: The checkpoint's path.
        path: Where the file goes; it appears there whole or not at all.
        name: What the model is served as; ``None`` is the file's name without suffix.
        max_side: Longer images are to be resized to this many pixels; ``None`` is the
            checkpoint's own.
        check: Compare with PyTorch, with native kernels and without, before the file appears.

    Returns:
        What the file says of itself.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is not one, or ``path`` is the checkpoint's.
        ppool.export.VerificationError: if the file and the network disagree.
    """
    path = Path(path)
    trained = Checkpoint.load(checkpoint)
    refuse_to_overwrite(Path(checkpoint), path)
    policy = trained.input if max_side is None else replace(trained.input, max_side=max_side)
    description = ModelMetadata(
        name=path.stem if name is None else name,
        network=trained.network,
        classes=trained.classes,
        input=policy,
        stages=(),
        training=trained.training,
        versions=_versions(),
    )
    normalisation = Normalisation(trained.mean, trained.std)
    return _export(trained.build(), path, description, normalisation, check)


def _export(
    model: nn.Module,
    path: Path,
    description: ModelMetadata,
    normalisation: Normalisation,
    check: bool,
) -> ModelMetadata:
    pipeline = Pipeline(model, normalisation)
    multiple = description.input.multiple
    side = description.input.padded(128)
    example = torch.zeros(2, side, side + multiple, 3, dtype=torch.uint8)
    logits = pipeline.logits(example)
    _check_logits(logits, len(description.classes))
    description = replace(description, stages=pipeline.stages(example))
    outputs = ["mask", *(stage.output for stage in description.stages)]
    graph = trace(pipeline, example, outputs, multiple)
    tiles = on_pixel_grid(logits.shape[2:], example.shape[1:3])
    offered = cast_to_logits(graph.graph) if tiles else []
    content = assemble(graph, description, offered).SerializeToString()
    if check:
        verify(content, pipeline, multiple)
    save_whole(content, path)
    return description


def _check_logits(logits: Any, classes: int) -> None:
    if not isinstance(logits, torch.Tensor) or logits.dim() != 4:
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"network: expected logits [N, K, h, w], got {found!r}")
    if logits.shape[1] != classes:
        raise ValueError(
            f"classes: expected {logits.shape[1]}, as many as the network has logits, got {classes}"
        )


def _versions() -> dict[str, str]:
    packages = {package: version(package) for package in ("ppool", "torch", "onnx", "onnxscript")}
    return packages | {"opset": str(ONNX_OPSET), DOMAIN: str(OPSET)}
