"""``adopt_model``: a network exported by others, wrapped into the one-file contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from ppool._library import custom_ops_library
from ppool.export._assemble import assemble, on_pixel_grid
from ppool.export._describe import Adoption, with_colours
from ppool.export._files import refuse_to_overwrite, save_whole
from ppool.export._head import Head
from ppool.export._inside import names_inside
from ppool.export._judge import TOLERANCE, Example, Judge, find_judge
from ppool.export._kinds import refuse_other_kinds
from ppool.export._network import read_network, silent, words
from ppool.export._wrap import Place, places, wrap
from ppool.metadata import METADATA_KEY, MOST_CLASSES, ModelMetadata
from ppool.onnx_ops import DOMAIN, OPSET
from ppool.runtime import LOGITS, MASK_SIZE, make_session

__all__ = ["adopt_model"]


class _DisagreementError(ValueError):
    """A wrapped network answers otherwise than the one that came."""


def adopt_model(source: str | Path, path: str | Path, adoption: Adoption) -> ModelMetadata:
    """Put all that a network needs before it, and all that makes a mask behind it, in one file.

    The result is compared with the file as it came, in ONNX Runtime, on a photo and on noise, with
    native kernels and without, before it appears. A last bilinear resize is fused with the argmax,
    and with the resize to the photo's size, where that changes nothing. A network that cannot take
    several photos at a time, or whose answer depends on which, is given one at a time. Where a
    score stands for no whole number of pixels, the file says so, and the service refuses
    ``mode=tile``.

    Shape:
        The network maps photos, [N, C, H, W] or [N, H, W, C] of floats or bytes, to scores,
        [N, K, h, w] or [N, h, w, K], or to labels. The file maps ``image``, uint8 [N, H, W, 3], to
        ``mask``, uint8 [N, H, W], or uint16 of more than 256 classes.

    Args:
        source: The network's ONNX file, of opset 7 or newer.
        path: Where the result goes; it appears there whole or not at all.
        adoption: What the network needs to be fed, and what its answer means.

    Returns:
        What the file says of itself; ``training`` tells what was found out.

    Raises:
        ValueError: if the network is of another kind, or the result differs from it, or ``path`` is
            ``source``.
        OSError: if a file cannot be read or written.
    """
    source, path = Path(source), Path(path)
    refuse_to_overwrite(source, path)
    network = read_network(source)
    refuse_other_kinds(network)
    judge = find_judge(network, adoption)
    inside = () if adoption.classes else names_inside(network.model, judge.head, judge.labels)
    names = _names(adoption.classes or inside, judge.head, judge.labels)
    found = {"adopted": source.name, "fed": str(judge.intake), "mask": str(judge.head)}
    if inside:
        found["names"] = "those in the file's own metadata"
    if doubts := [*judge.doubts(names)]:
        found["doubts"] = "; ".join(doubts)
    description = ModelMetadata(
        name=path.stem if adoption.name is None else adoption.name,
        network=network.model.graph.name or source.stem,
        classes=with_colours(names),
        input=judge.policy,
        stages=(),
        training=found,
        versions={package: version(package) for package in ("ppool", "onnx")}
        | {DOMAIN: str(OPSET)},
        head=judge.head.kind,
        scores=judge.head.scores,
    )
    examples = judge.examples(len(names))
    fault: Exception = ValueError("nothing to try")
    with silent():
        for free_batch, place in _choices(judge):
            if not free_batch and judge.batches:
                why = (
                    "its answer depends on which"
                    if isinstance(fault, _DisagreementError)
                    else "it fails"
                )
                description = replace(
                    description, training=found | {"batches": f"one photo at a time: of two, {why}"}
                )
            try:
                content, description = _wrapped(judge, place, free_batch, description, examples)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
                fault = error
            else:
                save_whole(content, path)
                return description
    raise ValueError(
        f"{source}: the wrapped network does not do what the original does: {words(fault)}"
    )


def _choices(judge: Judge) -> Iterator[tuple[bool, Place]]:
    """Whether photos may share a batch, and where scores are taken, best first."""
    for free_batch in (True, False):
        for place in places(judge):
            yield free_batch, place


def _names(given: Sequence[str], head: Head, labels: int) -> tuple[str, ...]:
    """The classes of the mask, the background's included."""
    names = tuple(given)
    if head.kind == "threshold":
        if len(names) > 2:
            raise ValueError(
                "--classes: expected the foreground's name, or the background's and the "
                f"foreground's, got {len(names)}: the network has one channel, and a pixel is "
                f"foreground above {head.threshold:g}"
            )
        return {0: ("background", "foreground"), 1: ("background", *names)}.get(len(names), names)
    expected = labels if head.kind == "labels" else head.channels
    if not names:
        names = tuple(f"class {index}" for index in range(expected))
    if len(names) + head.background > MOST_CLASSES:
        raise ValueError(
            f"--classes: {len(names)} of them; a mask of ppool holds {MOST_CLASSES} at most"
        )
    if head.kind == "labels":
        if len(names) < expected:
            raise ValueError(
                f"--classes: expected {expected} or more, as the network gives labels up to "
                f"{expected - 1}, got {len(names)}"
            )
        return names
    if len(names) != expected:
        raise ValueError(
            f"--classes: expected {expected}, as many as the network has logits, got {len(names)}"
        )
    return ("background", *names) if head.background else names


def _wrapped(
    judge: Judge,
    place: Place,
    free_batch: bool,
    description: ModelMetadata,
    examples: Sequence[Example],
) -> tuple[bytes, ModelMetadata]:
    """Content of the new file, and what it says of itself.

    Raises:
        Exception: if ONNX Runtime refuses it, or it differs from the original.
    """
    classes, batch = len(description.classes), 2 if free_batch else 1
    model, logits = wrap(judge, place, classes, free_batch=free_batch)
    content: bytes = assemble(model, description, logits).SerializeToString()
    _compare(content, examples, batch, judge.tolerance)
    if logits and description.scores and not _can_be_tiled(content, examples):
        off_grid = replace(description.scores, on_grid=False)
        description = replace(description, scores=off_grid)
        helper.set_model_props(model, {METADATA_KEY: description.to_json()})
        content = model.SerializeToString()
    return content, description


def _compare(content: bytes, examples: Sequence[Example], batch: int, tolerance: float) -> None:
    """Run the file on ``batch`` images of each example, with every kind of kernel that is here.

    Raises:
        _DisagreementError: if a mask is not the original's.
    """
    for native in (False, True) if custom_ops_library() else (False,):
        session = make_session(content, use_native=native, quiet=True)
        for index, example in enumerate(examples):
            images, masks = example.images[:batch], example.masks[:batch]
            feeds: dict[str, Any] = {"image": images}
            if masks.shape != images.shape[:3]:
                feeds[MASK_SIZE] = np.array(masks.shape[1:], np.int64)
            (found,) = session.run(["mask"], feeds)
            if batch > 1 and tolerance > TOLERANCE and not (native or index):
                # A difference that would pass below may be the neighbour's.
                alone = [session.run(["mask"], feeds | {"image": i[None]})[0] for i in images]
                if np.mean(found != np.concatenate(alone)) > TOLERANCE:
                    raise _DisagreementError("masks depend on what else is in the batch")
            if found.shape != masks.shape:
                raise _DisagreementError(f"masks are {list(found.shape)}, not {list(masks.shape)}")
            wrong = np.count_nonzero(found != masks)
            if wrong > max(1, tolerance * masks.size):
                raise _DisagreementError(
                    f"{wrong} of {masks.size} pixels of {list(images.shape)} differ on "
                    f"{session.kernels} kernels"
                )


def _can_be_tiled(content: bytes, examples: Sequence[Example]) -> bool:
    """Whether the logits of every example lie on a grid of whole pixels."""
    session = make_session(content, quiet=True)
    images = {example.images.shape[1:3]: example.images[:1] for example in examples}
    return all(
        on_pixel_grid(session.run([LOGITS], {"image": image})[0].shape[2:], size)
        for size, image in images.items()
    )
