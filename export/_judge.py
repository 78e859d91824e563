"""The network as it came, with all around it done in NumPy: what a wrapped one must answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ppool
from ppool.export._describe import Adoption
from ppool.export._head import Head, recognise, spatial_layout
from ppool.export._intake import LAYOUTS, Intake
from ppool.export._kinds import classifies_masks, describe_shapes, has_queries, other_kind
from ppool.export._network import Network, declared_sizes
from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy
from ppool.service.codecs.images import decode_file

__all__ = [
    "CannotRunError",
    "Example",
    "Judge",
    "SeveralOutputsError",
    "find_judge",
    "pictures",
    "takes_grey",
]

# Share of the pixels where rounding decides between classes; of 8 or 16 bits, scores often tie.
TOLERANCE, COARSE_TOLERANCE = 1e-4, 1e-2
QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv"}
# Values of pixels that are left open, by what they are: few of a trained network's.
OPEN = {"probabilities": (0.1, 0.9), "logits": (-2.2, 2.2)}
# Logits are seldom further from the threshold.
SUREST = 100
# A declared side shorter than this is no side of photos, but says how many channels there are.
THINNEST = 8
# A page of handwriting with a drawing, which the playground shows first.
PHOTO = Path(ppool.__file__).parent / "service" / "playground" / "notes.jpg"


class CannotRunError(ValueError):
    """Photos of these sizes are none that a network takes."""


class SeveralOutputsError(ValueError):
    """More than one output could be meant."""


@dataclass(frozen=True)
class Example:
    """A photo and noise, uint8 [2, H, W, 3], and their masks, [2, h, w]."""

    images: NDArray[np.uint8]
    masks: NDArray[Any]


@dataclass(frozen=True)
class Judge:
    """How a network is fed and read.

    Attributes:
        network: As it came.
        intake: How it takes photos.
        policy: Of which sizes.
        output: Name of the one that is read.
        head: What that becomes.
        dtype: Of that.
        labels: One more than the largest label seen.
        batches: Whether the network declares that it takes several photos.
        answers: What it gave for each of :func:`pictures`; large networks take their time.
    """

    network: Network
    intake: Intake
    policy: InputPolicy
    output: str
    head: Head
    dtype: np.dtype[Any]
    labels: int
    batches: bool
    answers: tuple[NDArray[Any], ...]

    @property
    def tolerance(self) -> float:
        """Share of the pixels that rounding may decide."""
        kinds = {node.op_type for node in self.network.model.graph.node}
        coarse = kinds & QUANTISED or np.float16 in (self.dtype, self.intake.dtype)
        # Levels of grey, each of which rounding may make the next.
        coarse = coarse or (self.head.kind == "threshold" and self.dtype.kind in "iu")
        return COARSE_TOLERANCE if coarse else TOLERANCE

    def doubts(self, names: Sequence[str]) -> Iterator[str]:
        """What may be wrong with the answers, in sentences for people.

        Args:
            names: Of the classes.
        """
        classes = len(names)
        seen = {
            label
            for answer in self.answers
            for label in np.unique(self.head.mask(answer, (64, 64), classes)).tolist()
        }
        if len(seen) == 1:
            yield (
                f"nothing but {names[seen.pop()]} is seen in a page of writing and in noise; look "
                "at a photo of yours with ppool inspect"
            )
        if self.head.kind != "threshold" or self.head.unit not in OPEN:
            return
        offset = self.head.threshold if self.head.unit == "logits" else 0.0
        page = self.answers[0].astype(np.float32) - offset
        low, high = OPEN[self.head.unit]
        uncertain = float(np.mean((page > low) & (page < high)))
        if uncertain > 0.5:
            yield (
                f"{uncertain:.0%} of the values on a page are between {low + offset:g} and "
                f"{high + offset:g}, as those of maps of distances or light are, and those of "
                "classes are not"
            )
        if self.head.unit == "logits" and (most := float(np.abs(page).max())) > SUREST:
            yield (
                f"values on a page are as far as {most:.0f} from the threshold, as those of maps "
                "of distances are, and logits are not"
            )

    def mask(self, image: NDArray[np.uint8], size: tuple[int, int], classes: int) -> NDArray[Any]:
        """The mask of one photo, [*size]."""
        outputs = self.network.run(self.intake.name, self.intake.array(image))
        mask: NDArray[Any] = self.head.mask(outputs[self.output], size, classes)[0]
        return mask

    def examples(self, classes: int) -> list[Example]:
        """Photos and noise of every size that the network is judged at, with their masks."""
        found, answers = [], iter(self.answers)
        for images in pictures(self.intake, self.policy):
            outputs = list(itertools.islice(answers, len(images)))
            height, width = images.shape[1:3]
            sizes = [(height, width)]
            if self.policy.size is not None:
                sizes.append((height + height // 2 + 1, width + width // 4))
            for size in sizes:
                masks = [self.head.mask(output, size, classes)[0] for output in outputs]
                found.append(Example(images, np.stack(masks)))
        return found


def find_judge(network: Network, adoption: Adoption) -> Judge:
    """Find out, by running it, where a network takes photos and what it answers.

    Raises:
        CannotRunError: if it takes no photos of the sizes that are tried.
        ValueError: if it answers nothing that becomes a mask.
    """
    intakes, failed = _intakes(network, adoption.normalisation), ""
    _ = network.session  # whose faults are none of the sizes tried
    for intake in intakes:
        policy = adoption.policy(intake.height, intake.width)
        images = [image for pair in pictures(intake, policy) for image in pair]
        try:
            answers = [network.run(intake.name, intake.array(image)) for image in images]
        except ValueError as error:
            height, width = images[0].shape[:2]
            failed = failed or (
                f"network: ONNX Runtime cannot run it on {height} x {width} pixels; give a "
                f"--multiple or --size that suits it: {error}"
            )
            continue
        sizes = [image.shape[:2] for image in images]
        name, layout = _output(network, answers, sizes, adoption.output)
        values = [answer[name] for answer in answers]
        head = recognise(values, layout, adoption.head, adoption.threshold)
        labels = 1 + max(int(value.max()) for value in values) if head.kind == "labels" else 0
        first = (declared_sizes(network.inputs[0]) or [None])[0]
        return Judge(
            network,
            intake,
            policy,
            name,
            head,
            values[0].dtype,
            labels,
            batches=first is None,
            answers=tuple(values),
        )
    raise CannotRunError(failed)


def pictures(intake: Intake, policy: InputPolicy) -> Iterator[NDArray[np.uint8]]:
    """Photo and noise, uint8 [2, H, W, 3], of each size to try."""
    rng, side = np.random.default_rng(0), policy.padded(128)
    shapes = [policy.size] if policy.size else [(side, side), (side, side + policy.multiple)]
    for usual_height, usual_width in shapes:
        # One declared side alone is a slip of the exporter's, but ONNX Runtime insists on it.
        height, width = intake.height or usual_height, intake.width or usual_width
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        photo = decode_file(PHOTO, InputPolicy.fixed(height, width)).image
        yield np.stack((photo, noise))


def _intakes(network: Network, normalisation: Normalisation) -> list[Intake]:
    """What the declared shape leaves open, likeliest first.

    Raises:
        ValueError: if the input is nothing that takes photos.
    """
    (given,) = network.inputs
    kind = given.type.tensor_type.elem_type
    sizes = declared_sizes(given)
    axes = LAYOUTS[4] if sizes is None else LAYOUTS.get(len(sizes), ())
    intakes = []
    for layout in axes:
        declared = dict(zip(layout, sizes or [None] * 4, strict=True))
        fixed = declared["H"], declared["W"]
        thin = any(side is not None and side < THINNEST for side in fixed)
        photos = declared.get("N") in (1, None) and declared["C"] in (normalisation.count, None)
        if photos and not thin:
            intakes.append(Intake(given.name, kind, layout, normalisation, *fixed))
    # A declared number of channels tells where they are.
    told = [entry for entry in intakes if _tells_channels(entry, sizes)]
    if intakes:
        return told or intakes
    raise ValueError(_no_photos(given.name, sizes or [], normalisation))


def _tells_channels(intake: Intake, sizes: Sequence[int | None] | None) -> bool:
    """Whether the declared shape says that there are as many channels as the network is fed."""
    return sizes is not None and sizes[intake.layout.index("C")] == intake.normalisation.count


def takes_grey(sizes: Sequence[int | None]) -> bool:
    """Whether a declared shape has one channel."""
    return len(sizes) == 4 and (sizes[1] == 1 or (sizes[3] == 1 and sizes[2] != 1))


def _no_photos(name: str, sizes: Sequence[int | None], normalisation: Normalisation) -> str:
    shape = f"input {name}: expected [N, C, H, W] or [N, H, W, C] with N free or 1, got " + (
        describe_shapes(sizes)
    )
    channels = {1: "one channel, grey", 3: "three channels"}[normalisation.count]
    if normalisation.count == 3 and takes_grey(sizes):
        return f"{shape}; it takes one channel: use --channels grey"
    of_photos = "" if normalisation.count == 1 else ", all that a photo has"
    return f"{shape}, and C that is {channels}{of_photos}"


def _output(
    network: Network,
    answers: Sequence[Mapping[str, NDArray[Any]]],
    sizes: Sequence[tuple[int, int]],
    wanted: str | None,
) -> tuple[str, str]:
    """Name and layout of the output that becomes the mask."""
    layouts: dict[str, str] = {}
    for name in answers[0]:
        found = {
            spatial_layout(answer[name].shape, size)
            for answer, size in zip(answers, sizes, strict=True)
        }
        agreed = found.pop() if len(found) == 1 else None
        if agreed is not None:
            layouts[name] = agreed
    shapes = {name: list(array.shape) for name, array in answers[0].items()}
    chosen = wanted in layouts and not classifies_masks(shapes)
    if not chosen and has_queries(shapes, layouts):
        raise ValueError(other_kind(shapes, sizes[0]))
    if wanted is None and len(layouts) == 1:
        (wanted,) = layouts
    if wanted in layouts:
        return wanted, layouts[wanted]
    if not layouts or wanted in network.outputs:
        raise ValueError(other_kind(shapes, sizes[0]))
    if wanted is None:
        raise SeveralOutputsError(
            f"--output-name: say which of {[*layouts]!r} is meant; the first is usually the best "
            "of them, others being for training"
        )
    raise ValueError(f"--output-name: expected one of {[*layouts]!r}, got {wanted!r}")
