"""``adopt_model``: a network exported by others, wrapped into the one-file contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ppool._library import custom_ops_library
from ppool.export._assemble import ancestors, assemble, on_pixel_grid
from ppool.export._describe import with_colours
from ppool.export._files import refuse_to_overwrite, save_whole
from ppool.feeding import Normalisation
from ppool.metadata import METADATA_KEY, InputPolicy, ModelMetadata
from ppool.onnx_ops import DOMAIN, OPSET, RESIZE_ATTRIBUTES, register_schemas
from ppool.reference import resize_argmax_reference
from ppool.runtime import LOGITS, make_session

__all__ = ["Adoption", "adopt_model"]

# The body of ResizeArgMax slices a Shape, which is new in this version.
OLDEST_OPSET = 15
# Functions inside a model are new in this version of the file format.
FUNCTIONS_IR = 8
# Share of the pixels where classes may tie, so that rounding decides, by the logits' type.
MASK_TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
PREFIX = "network/"


@dataclass(frozen=True)
class Adoption:
    """What only a person can say of a network exported by others.

    Attributes:
        classes: Names in the order of the logits.
        normalisation: Mean and deviation of RGB in [0, 1].
        name: What the model is served as; ``None`` is the new file's name without suffix.
        size: Resize every image to this (height, width); ``None`` follows the network, which may
            take one size only, or else ``max_side`` and ``multiple``.
        max_side: Longer images are to be resized to this many pixels.
        multiple: Heights and widths are to be padded to multiples of this many pixels.
        output: Which output has the logits; ``None`` is the only one.
    """

    classes: Sequence[str]
    normalisation: Normalisation
    name: str | None = None
    size: tuple[int, int] | None = None
    max_side: int = 1024
    multiple: int = 32
    output: str | None = None


def adopt_model(source: str | Path, path: str | Path, adoption: Adoption) -> ModelMetadata:
    """Put normalisation before a network and resizing and argmax behind it, in one ONNX file.

    The result is compared with the original in ONNX Runtime, with native kernels and without,
    before it appears. A network whose batch is fixed to 1 gets a free one where it can run it, and
    a last bilinear resize of the logits is fused with the argmax where that changes nothing. Where
    a logit stands for no whole number of pixels, the file offers no logits, which ``mode=tile`` of
    the service would need.

    Shape:
        The network maps normalised RGB, float32 or float16 [N, 3, H, W], to logits [N, K, h, w].
        The file maps ``image``, uint8 [N, H, W, 3], to ``mask``, uint8 [N, H, W].

    Args:
        source: The network's ONNX file.
        path: Where the result goes; it appears there whole or not at all.
        adoption: What the network needs to be fed, and what its logits mean.

    Returns:
        What the file says of itself.

    Raises:
        ValueError: if the network is of another kind, or the result differs from it, or ``path`` is
            ``source``.
        OSError: if a file cannot be read or written.
    """
    source, path = Path(source), Path(path)
    refuse_to_overwrite(source, path)
    network = _load(source, adoption)
    description = ModelMetadata(
        name=path.stem if adoption.name is None else adoption.name,
        network=network.model.graph.name or source.stem,
        classes=with_colours(adoption.classes),
        input=_policy(network, adoption),
        stages=(),
        training={"adopted": source.name},
        versions={package: version(package) for package in ("ppool", "onnx")}
        | {DOMAIN: str(OPSET)},
    )
    examples = _examples(network, description)
    fault, tolerance = "", MASK_TOLERANCE[network.dtype]
    batches = (True,) if network.sizes[0] is None else (True, False)
    for free_batch, logits in product(batches, network.logits):
        try:
            wrapped = _wrap(network, logits, free_batch=free_batch)
            content = assemble(wrapped, description).SerializeToString()
            _compare(content, examples, 2 if free_batch else 1, tolerance)
            if not _can_be_tiled(content, examples):
                wrapped = _wrap(network, logits, free_batch=free_batch)
                content = assemble(wrapped, description, with_logits=False).SerializeToString()
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            fault = str(error)
        else:
            save_whole(content, path)
            return description
    raise ValueError(f"{source}: the wrapped network does not do what the original does: {fault}")


@dataclass(frozen=True)
class _Network:
    """A network as it came: where the image goes in and the logits come out."""

    model: ModelProto
    given: ValueInfoProto
    output: ValueInfoProto
    normalisation: Normalisation

    @property
    def dtype(self) -> str:
        """Of the input: float32 or float16."""
        return str(helper.tensor_dtype_to_np_dtype(self.given.type.tensor_type.elem_type))

    @property
    def sizes(self) -> list[int | None]:
        """Of the input, [N, 3, H, W]; ``None`` where free."""
        return _sizes(self.given)

    @property
    def logits(self) -> tuple[str, ...]:
        """Where to take the logits, best first: before a last bilinear resize, or behind it.

        ``ResizeArgMax`` does the same resize without writing [N, K, H, W] to memory.
        """
        last = next((n for n in self.model.graph.node if self.output.name in n.output), None)
        if last is None or last.op_type != "Resize":
            return (self.output.name,)
        settings = {entry.name: helper.get_attribute_value(entry) for entry in last.attribute}
        bilinear = settings.get("mode") == b"linear" and not settings.get("antialias")
        where = settings.get("coordinate_transformation_mode", b"half_pixel")
        if bilinear and where in (b"half_pixel", b"pytorch_half_pixel"):
            return (last.input[0], self.output.name)
        return (self.output.name,)

    @property
    def constants(self) -> dict[str, NDArray[np.float32]]:
        """Mean and deviation in units of the byte image, [3, 1, 1]."""
        rows = {"mean": self.normalisation.mean, "deviation": self.normalisation.std}
        return {
            name: 255 * np.array(row, np.float32).reshape(3, 1, 1) for name, row in rows.items()
        }


def _load(source: Path, adoption: Adoption) -> _Network:
    try:
        network = onnx.load(source)
        onnx.checker.check_model(network)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{source}: expected an ONNX file, got something else: {error}") from error
    if METADATA_KEY in {entry.key for entry in network.metadata_props}:
        raise ValueError(f"{source}: is a file of ppool export already; serve it as it is")
    opset = next((entry.version for entry in network.opset_import if not entry.domain), 0)
    if opset < OLDEST_OPSET:
        try:
            network = onnx.version_converter.convert_version(network, OLDEST_OPSET)
        except Exception as error:
            raise ValueError(
                f"{source}: opset {opset} cannot be converted to {OLDEST_OPSET}; export the "
                f"network again with opset {OLDEST_OPSET} or newer"
            ) from error
    given, output = _input(network), _output(network, adoption.output)
    return _Network(network, given, output, adoption.normalisation)


def _input(network: ModelProto) -> ValueInfoProto:
    """The image's place, checked to be float [N, 3, H, W]."""
    constants = {tensor.name for tensor in network.graph.initializer}
    inputs: list[ValueInfoProto] = [
        entry for entry in network.graph.input if entry.name not in constants
    ]
    if len(inputs) != 1:
        names = [entry.name for entry in inputs]
        raise ValueError(f"network: expected one input, the image, got {names!r}")
    given = inputs[0]
    kind, sizes = given.type.tensor_type.elem_type, _sizes(given)
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        found = TensorProto.DataType.Name(kind).lower()
        raise ValueError(f"input {given.name}: expected float32 or float16, got {found}")
    if len(sizes) != 4 or sizes[1] not in (3, None) or sizes[0] not in (1, None):
        raise ValueError(
            f"input {given.name}: expected [N, 3, H, W] with N free or 1, got "
            f"{['?' if size is None else size for size in sizes]!r}; export the network channels "
            "first and with a free batch"
        )
    return given


def _output(network: ModelProto, name: str | None) -> ValueInfoProto:
    """The logits' place, checked to be float."""
    outputs: dict[str, ValueInfoProto] = {entry.name: entry for entry in network.graph.output}
    if name is None and len(outputs) == 1:
        (name,) = outputs
    if name not in outputs:
        raise ValueError(f"--output-name: expected one of {list(outputs)!r}, got {name!r}")
    kind = outputs[name].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        found = TensorProto.DataType.Name(kind).lower()
        raise ValueError(
            f"output {name}: expected float logits [N, K, h, w], got {found}; "
            "export the network without its argmax"
        )
    return outputs[name]


def _sizes(entry: ValueInfoProto) -> list[int | None]:
    """The sizes of a tensor, ``None`` where free."""
    dims = entry.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _policy(network: _Network, adoption: Adoption) -> InputPolicy:
    _, _, height, width = network.sizes
    if height is None or width is None:
        if adoption.size is not None:
            return InputPolicy.fixed(*adoption.size)
        return InputPolicy(adoption.max_side, adoption.multiple)
    if adoption.size not in (None, (height, width)):
        raise ValueError(
            f"--size: expected {height}x{width}, all that this network takes, got "
            f"{adoption.size[0]}x{adoption.size[1]}"
        )
    return InputPolicy.fixed(height, width)


def _wrap(network: _Network, logits: str, *, free_batch: bool) -> ModelProto:
    register_schemas()
    wrapped = onnx.compose.add_prefix(network.model, PREFIX)
    graph = wrapped.graph
    _, _, height, width = network.sizes
    image = ["batch" if free_batch else 1, height or "height", width or "width", 3]
    # The shapes noted inside would hold the batch to 1; they are inferred again.
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, image))
    graph.output.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, image[:3]))
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in network.constants.items()
    )
    kind = network.given.type.tensor_type.elem_type
    before = [
        helper.make_node("Transpose", ["image"], ["bytes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["bytes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["normalised"]),
        helper.make_node("Cast", ["normalised"], [PREFIX + network.given.name], to=kind),
    ]
    after = [
        helper.make_node("Shape", ["image"], ["size"], start=1, end=3),
        helper.make_node(
            "ResizeArgMax",
            [PREFIX + logits, "size"],
            ["mask"],
            name="resize_argmax",
            domain=DOMAIN,
            **RESIZE_ATTRIBUTES,
        ),
    ]
    nodes = [*before, *graph.node, *after]
    # ONNX Runtime runs what nobody reads, too: the network's other outputs, a resize now fused.
    needed = ancestors(nodes, "mask")
    del graph.node[:]
    graph.node.extend(nodes[index] for index in sorted(needed))
    wrapped.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
    wrapped.ir_version = max(wrapped.ir_version, FUNCTIONS_IR)
    return wrapped


@dataclass(frozen=True)
class _Example:
    """Two images, uint8 [2, H, W, 3], and what the original makes of them, uint8 [2, H, W]."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def _examples(network: _Network, description: ModelMetadata) -> list[_Example]:
    """The original network on noise, one image at a time, with all around it done in NumPy."""
    from onnxruntime import InferenceSession  # not before ppool.runtime turned the telemetry off

    try:
        session = InferenceSession(
            network.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ValueError(f"network: ONNX Runtime cannot load it: {error}") from error
    rng, examples = np.random.default_rng(0), []
    for height, width in _shapes(description.input):
        images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        x = (pixels - network.constants["mean"]) / network.constants["deviation"]
        x = x.astype(network.dtype)
        try:
            logits = [
                session.run([network.output.name], {network.given.name: entry[None]})[0]
                for entry in x
            ]
        except Exception as error:
            raise ValueError(
                f"network: ONNX Runtime cannot run it on {height} x {width} pixels; give a "
                f"--multiple or --size that suits it: {error}"
            ) from error
        _check_logits(logits[0], len(description.classes))
        masks = [resize_argmax_reference(entry, (height, width)) for entry in logits]
        examples.append(_Example(images, np.concatenate(masks)))
    return examples


def _shapes(policy: InputPolicy) -> list[tuple[int, int]]:
    if policy.size is not None:
        return [policy.size]
    side = policy.padded(128)
    return [(side, side), (side, side + policy.multiple)]


def _check_logits(logits: NDArray[Any], classes: int) -> None:
    if logits.ndim != 4:
        raise ValueError(f"output: expected logits [N, K, h, w], got {list(logits.shape)!r}")
    if logits.shape[1] != classes:
        raise ValueError(
            f"--classes: expected {logits.shape[1]}, as many as the network has logits, "
            f"got {classes}"
        )


def _compare(content: bytes, examples: Sequence[_Example], batch: int, tolerance: float) -> None:
    """Run the file on ``batch`` images of each example, with every kind of kernel that is here.

    Raises:
        ValueError: if a mask is not the original's.
    """
    for native in (False, True) if custom_ops_library() else (False,):
        session = make_session(content, use_native=native)
        for example in examples:
            images, masks = example.images[:batch], example.masks[:batch]
            (found,) = session.run(["mask"], {"image": images})
            wrong = np.count_nonzero(found != masks)
            if wrong > max(1, tolerance * masks.size):
                raise ValueError(
                    f"{wrong} of {masks.size} pixels of {list(images.shape)} differ on "
                    f"{session.kernels} kernels"
                )


def _can_be_tiled(content: bytes, examples: Sequence[_Example]) -> bool:
    """Whether the logits of every example lie on a grid of whole pixels."""
    session = make_session(content)
    return all(
        on_pixel_grid(
            session.run([LOGITS], {"image": example.images[:1]})[0].shape[2:],
            example.images.shape[1:3],
        )
        for example in examples
    )
