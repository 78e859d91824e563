"""A look at a network of others: what goes in, what comes out, and how to adopt it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image, ImageDraw

from ppool.export._beside import Beside, read_beside
from ppool.export._describe import Adoption, with_colours
from ppool.export._inside import first_arithmetic, names_inside
from ppool.export._judge import (
    PHOTO,
    CannotRunError,
    Judge,
    SeveralOutputsError,
    find_judge,
    takes_grey,
)
from ppool.export._kinds import describe_shapes, refuse_other_kinds
from ppool.export._network import Network, declared_sizes, read_network
from ppool.feeding import PRESETS, Feed, Normalisation, feed
from ppool.metadata import InputPolicy
from ppool.service.codecs.images import decode_file

__all__ = ["Inspection", "Seen", "inspect_network"]

LONGEST_SIDE = 512
MULTIPLES = (32, 64, 128, 14, 16)
# Of networks that take one size only and do not say so.
SIZES = (512, 256, 224, 384, 640, 1024, 320, 448, 518)


@dataclass(frozen=True)
class Seen:
    """One output on a photo."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        network: The file.
        judge: How it is fed and read.
        adoption: What is proposed.
        beside: What the files beside it say.
        reason: Why this normalisation is proposed.
        certain: Whether the reason is a good one.
        seen: All outputs on the photo.
    """

    network: Network
    judge: Judge
    adoption: Adoption
    beside: Beside
    reason: str
    certain: bool
    seen: tuple[Seen, ...]

    @property
    def line(self) -> str:
        """The command that adopts the network."""
        words = ["ppool", "adopt", str(self.network.path), "-o", self._target]
        normalisation = self.adoption.normalisation
        if self.beside.normalisation is None:
            words += _said(normalisation)
        if len(self.network.outputs) > 1:
            words += ["--output-name", self.judge.output]
        if not (self.beside.classes or self._inside):
            words += ["--classes", ",".join(self.names)]
        if self.adoption.size is not None and self.beside.size is None:
            words += ["--size", "x".join(map(str, self.adoption.size))]
        elif self.adoption.multiple not in {MULTIPLES[0], self.beside.multiple}:
            words += ["--multiple", str(self.adoption.multiple)]
        if self.adoption.head:
            words += ["--head", self.adoption.head]
        return shlex.join(words)

    @property
    def _target(self) -> str:
        stem = self.network.path.stem
        return f"{stem}-ppool.onnx"

    @property
    def names(self) -> list[str]:
        """Of the classes that the line proposes."""
        if self._inside:
            return [*self._inside]
        head = self.judge.head
        if head.kind == "threshold":
            return ["background", "foreground"]
        count = self.judge.labels if head.kind == "labels" else head.channels
        return [f"class{index}" for index in range(count)]

    @property
    def _inside(self) -> tuple[str, ...]:
        """Names in the file's own metadata, if there are as many as there are classes."""
        return names_inside(self.network.model, self.judge.head, self.judge.labels)


def _said(normalisation: Normalisation) -> Iterator[str]:
    """The options that say it."""
    channels = normalisation.channels
    for name, known in PRESETS.items():
        alike = known == normalisation or (
            # One number is that of every channel.
            channels == "bgr"
            and len(known.mean) == 1
            and known == replace(normalisation, channels="rgb")
        )
        if alike:
            yield from ("--preset", name)
            if known.channels != channels:
                yield from ("--channels", channels)
            return
    for name in ("mean", "std"):
        yield f"--{name}"
        yield ",".join(f"{value:g}" for value in getattr(normalisation, name))
    if normalisation.scale is not None:
        yield from ("--scale", str(normalisation.scale))
    if normalisation.channels != "rgb":
        yield from ("--channels", normalisation.channels)


def inspect_network(path: Path, photo: Path | None = None) -> Inspection:
    """Run a network on a photo and propose how to adopt it.

    Args:
        path: The network's ONNX file.
        photo: Any image file; ``None`` is the playground's.

    Raises:
        ValueError: if it is no semantic segmentation; the message names what it is.
        OSError: if a file cannot be read.
    """
    network = read_network(path)
    refuse_other_kinds(network)
    beside = read_beside(path)
    normalisation, reason, certain = _guess(network, beside)
    adoption = Adoption(
        beside.classes,
        normalisation,
        size=beside.size,
        pad=beside.pad,
        min_side=beside.min_side,
        max_side=beside.max_side or LONGEST_SIDE,
        rounds=beside.rounds,
        resample=beside.resample,
    )
    judge, adoption = _first_that_runs(network, adoption, beside)
    image = _fed(judge, photo or PHOTO).image
    outputs = network.run(judge.intake.name, judge.intake.array(image))
    seen = tuple(
        Seen(name, array.shape, str(array.dtype), float(array.min()), float(array.max()))
        for name, array in outputs.items()
        if array.size
    )
    return Inspection(network, judge, adoption, beside, reason, certain, seen)


def _guess(network: Network, beside: Beside) -> tuple[Normalisation, str, bool]:
    """What photos become, why, and whether the reason is a good one."""
    if beside.normalisation is not None:
        return beside.normalisation, f"{beside.files[0].name} says so", True
    (given,) = network.inputs
    grey = takes_grey(declared_sizes(given) or [])
    raw = PRESETS["raw"]
    if grey:
        raw = replace(raw, channels="grey")
    kind = given.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        return raw, "the input takes whole numbers", True
    if inside := first_arithmetic(network):
        begins = f"the network itself begins with {' and '.join(inside.operators)}"
        fed = inside.fed or raw
        reason = begins if inside.fed else f"a guess: {begins}"
        return (replace(fed, channels="grey") if grey else fed), reason, inside.fed is not None
    if grey:
        return (
            Normalisation((0.5,), (0.5,), "grey", 1),
            "a guess: most networks of one channel",
            False,
        )
    return PRESETS["imagenet"], "a guess: most networks are trained so", False


def _first_that_runs(
    network: Network, adoption: Adoption, beside: Beside
) -> tuple[Judge, Adoption]:
    """With the least multiple that the network takes, or a usual size, and the best output."""
    fault: ValueError | None = None
    multiples = (beside.multiple,) if beside.multiple else MULTIPLES
    choices = [replace(adoption, multiple=multiple) for multiple in multiples]
    if adoption.size is None and adoption.min_side is None:
        choices += [replace(adoption, size=(side, side)) for side in SIZES]
    for tried in choices:
        try:
            return find_judge(network, tried), tried
        except CannotRunError as error:
            fault = fault or error
        except SeveralOutputsError as error:
            return _first_output(network, tried, error)
    raise fault or ValueError("network: nothing to try")


def _first_output(
    network: Network, adoption: Adoption, fault: ValueError
) -> tuple[Judge, Adoption]:
    """The first output that becomes a mask."""
    for name in network.outputs:
        chosen = replace(adoption, output=name)
        try:
            return find_judge(network, chosen), chosen
        except ValueError as error:
            fault = error
    raise fault


def _fed(judge: Judge, path: Path) -> Feed:
    """A photo as the network is fed it."""
    policy, declared = judge.policy, (judge.intake.height or 0, judge.intake.width or 0)
    if policy.size is None and any(declared):
        # ONNX Runtime insists on one declared side.
        most = max(LONGEST_SIDE, *declared)
        policy = InputPolicy.fixed(
            declared[0] or most, declared[1] or most, resample=policy.resample
        )
    photo = decode_file(path, policy)
    return feed(photo.image, policy, (photo.height, photo.width))


def picture(inspection: Inspection, photo: Path) -> Image.Image:
    """The photo and its mask; where the normalisation is a guess, the mask of each preset."""
    judge = inspection.judge
    fed = _fed(judge, photo)
    image, (height, width) = fed.image, fed.content
    choices: Mapping[str, Normalisation] = {"mask": inspection.adoption.normalisation}
    if not inspection.certain and judge.intake.normalisation.channels == "rgb":
        choices = {f"--preset {name}": known for name, known in PRESETS.items()}
    panels = [("photo", Image.fromarray(image[:height, :width]))]
    for title, normalisation in choices.items():
        asked = replace(judge, intake=replace(judge.intake, normalisation=normalisation))
        classes = max(len(inspection.adoption.classes), judge.head.channels, judge.labels, 2) + 1
        mask = asked.mask(image, image.shape[:2], classes)[:height, :width]
        panels.append((title, _coloured(mask, classes)))
    sheet = Image.new("RGB", (width * len(panels), height + 16), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (title, panel) in enumerate(panels):
        sheet.paste(panel, (index * width, 16))
        pen.text((index * width + 2, 2), title, fill="black")
    return sheet


def _coloured(mask: NDArray[Any], classes: int) -> Image.Image:
    colours = np.array([label.rgb for label in with_colours([""] * classes)], np.uint8)
    return Image.fromarray(colours[mask])


def table_rows(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """What a person is told, by name."""
    network, judge = inspection.network, inspection.judge
    model = network.model
    yield "file", f"{network.path}, opset {network.opset}, by {model.producer_name or '?'}"
    for entry in network.inputs:
        kind = TensorProto.DataType.Name(entry.type.tensor_type.elem_type).lower()
        declared = declared_sizes(entry)
        yield f"input {entry.name}", f"{kind} {describe_shapes(declared) if declared else '[...]'}"
    for seen in inspection.seen:
        shape = describe_shapes(seen.shape)
        yield f"output {seen.name}", f"{seen.dtype} {shape}, {seen.low:.4g} to {seen.high:.4g}"
    yield "takes", f"{judge.intake.layout}, {judge.intake.normalisation} ({inspection.reason})"
    yield "gives", f"{judge.output}, {judge.head.layout}: {judge.head}"
    if (
        judge.head.kind == "argmax"
        and judge.head.unit == "probabilities"
        and not judge.head.normalised
    ):
        yield "", "probabilities that do not sum to 1: --head multilabel if classes may overlap"
    for doubt in judge.doubts(inspection.names):
        yield "doubt", doubt
    for file in inspection.beside.files:
        yield "read", str(file)
    for note in inspection.beside.notes:
        yield "", note
