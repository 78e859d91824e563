"""``export_model``: any PyTorch network to one self-describing ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppool.export._assemble import assemble, cast_to_logits, offer_mask_size, on_pixel_grid
from ppool.export._describe import with_colours
from ppool.export._files import refuse_to_overwrite, save_whole
from ppool.export._layer import Behind
from ppool.export._shuffle import label_blocks, shuffle_last
from ppool.export._trace import Pipeline, trace
from ppool.export._verify import example_images, verify
from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass, ModelMetadata, Scores
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
    threshold: float = 0.0,
    behind: Behind | None = None,
    check: bool = True,
) -> ModelMetadata:
    """Export a segmentation network to an ONNX file that ``ppool serve`` serves.

    Every :class:`ppool.PPool2d` inside becomes one ``PPoolUnit`` with an alpha map as an extra
    output. The model itself is left as it is.

    Shape:
        ``model`` maps normalised RGB, float32 [N, 3, H, W], to logits [N, K, h, w] at any stride,
        bare or in a dictionary, a tuple or an object, as torchvision and Hugging Face give them.
        The file maps ``image``, uint8 [N, H, W, 3], to ``mask``, uint8 [N, H, W], or uint16 of more
        than 256 classes.

    Args:
        model: The network.
        path: Where the file goes; it appears there whole or not at all.
        classes: The K classes in the order of the logits; plain names get colours. Of one channel,
            the foreground's, or the background's and the foreground's.
        mean: Of RGB in [0, 1], as in training.
        std: Likewise.
        max_side: Longer images are to be resized to this many pixels.
        multiple: Heights and widths are to be padded to multiples of this many pixels.
        name: What the model is served as; ``None`` is the file's name without suffix.
        training: A record to travel in the file: data, seed, scores.
        threshold: Above which a pixel of a network of one channel is foreground: 0 of logits; 0.5
            if it ends in a sigmoid.
        behind: What else the file does to the logits, of networks with as many as pixels.
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
    moved = behind.layer(description.classes) if behind else None
    pipeline = Pipeline(model, Normalisation(mean, std), threshold, moved)
    return _export(pipeline, path, description, check)


def export_checkpoint(
    checkpoint: str | Path,
    path: str | Path,
    *,
    name: str | None = None,
    max_side: int | None = None,
    card: str = "",
    behind: Behind | None = None,
    check: bool = True,
) -> ModelMetadata:
    """Export a checkpoint written by ``ppool train``.

    Args:
        checkpoint: The checkpoint's path.
        path: Where the file goes; it appears there whole or not at all.
        name: What the model is served as; ``None`` is the file's name without suffix.
        max_side: Longer images are to be resized to this many pixels; ``None`` is the
            checkpoint's own.
        card: What to know before trusting the model, in Markdown.
        behind: As of :func:`export_model`.
        check: Compare with PyTorch, with native kernels and without, before the file appears.

    Returns:
        What the file says of itself.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is not one, ``path`` is the checkpoint's, or ``behind`` does not fit.
        ppool.export.VerificationError: if the file and the network disagree.
    """
    path = Path(path)
    trained = Checkpoint.load(checkpoint)
    refuse_to_overwrite(Path(checkpoint), path)
    if max_side is not None:
        trained = replace(trained, input=replace(trained.input, max_side=max_side))
    description = trained.into(
        ModelMetadata,
        name=path.stem if name is None else name,
        stages=(),
        versions=_versions(),
        card=card,
    )
    normalisation = Normalisation(trained.mean, trained.std)
    moved = behind.layer(trained.classes) if behind else None
    pipeline = Pipeline(trained.build(), normalisation, behind=moved)
    return _export(pipeline, path, description, check)


def _export(
    pipeline: Pipeline, path: Path, description: ModelMetadata, check: bool
) -> ModelMetadata:
    multiple = description.input.multiple
    side = description.input.padded(128)
    example = torch.zeros(2, side, side + multiple, 3, dtype=torch.uint8)
    description = _with_background(description, pipeline.scores(example).shape[1])
    logits = pipeline.logits(example)
    _check_logits(logits, len(description.classes))
    scores = _scores(pipeline, description, example.shape)
    scores = replace(scores, on_grid=on_pixel_grid(logits.shape[2:], example.shape[1:3]))
    description = replace(description, stages=pipeline.stages(example), scores=scores)
    outputs = ["mask", *(stage.output for stage in description.stages)]
    graph = trace(pipeline, example, outputs, multiple)
    shuffle_last(graph.graph)
    offer_mask_size(graph.graph)
    to_logits = label_blocks(graph.graph, cast_to_logits(graph.graph))
    content = assemble(graph, description, to_logits).SerializeToString()
    if check:
        verify(content, pipeline, multiple)
    save_whole(content, path)
    return description


def _with_background(description: ModelMetadata, channels: int) -> ModelMetadata:
    """Of a network of one channel the foreground's name is enough."""
    if channels > 1:
        return description
    classes = description.classes
    if len(classes) == 1:
        foreground = replace(classes[0], id=1)
        classes = (LabelClass(0, "background", "#000000"), foreground)
    return replace(description, classes=classes, head="threshold")


def _scores(pipeline: Pipeline, description: ModelMetadata, shape: Sequence[int]) -> Scores:
    """What the network's answer means: probabilities lie in [0, 1], and those of classes sum to 1.

    Args:
        pipeline: The network.
        description: Of it.
        shape: Of images to try it on.
    """
    values = pipeline.scores(example_images(shape)).double()
    threshold = pipeline.threshold if description.head == "threshold" else 0.0
    inside = bool(((values >= 0) & (values <= 1)).all())
    whole = 0 < threshold < 1 if description.head == "threshold" else _sums_to_one(values)
    return Scores("probabilities" if inside and whole else "logits", threshold)


def _sums_to_one(values: torch.Tensor) -> bool:
    return bool((values.sum(1) - 1).abs().max() < 1e-3)


def _check_logits(logits: torch.Tensor, classes: int) -> None:
    if logits.shape[1] != classes:
        raise ValueError(
            f"classes: expected {logits.shape[1]}, as many as the network has logits, got {classes}"
        )


def _versions() -> dict[str, str]:
    packages = {package: version(package) for package in ("ppool", "torch", "onnx", "onnxscript")}
    return packages | {"opset": str(ONNX_OPSET), DOMAIN: str(OPSET)}
