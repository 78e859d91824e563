"""TensorRT engines of exported files, and the ``trtexec`` lines that build the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

import ppool
from ppool.metadata import InputPolicy
from ppool.onnx_ops import DOMAIN, RESIZE_ATTRIBUTES, resize_argmax_for

__all__ = [
    "Limits",
    "Shapes",
    "TensorRtMissingError",
    "build_engine",
    "plugin_library",
    "trtexec",
]

PLUGIN = "_tensorrt.so"


class TensorRtMissingError(ValueError):
    """TensorRT's Python package is not installed."""


@dataclass(frozen=True)
class Limits:
    """What an engine is limited to.

    Attributes:
        max_batch: Most images at a time.
        max_side: Longest side in pixels, a multiple of the file's; ``None`` is its own limit.
    """

    max_batch: int = 1
    max_side: int | None = None


@dataclass(frozen=True)
class Shapes:
    """Sizes of ``image``, uint8 [N, H, W, 3], that an engine takes: fewest, expected, most."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]

    @classmethod
    def of(cls, model: onnx.ModelProto, policy: InputPolicy, asked: Limits) -> Shapes:
        """From what a file says of its input.

        Args:
            model: The file.
            policy: Of the file.
            asked: What it is to be limited to.

        Raises:
            ValueError: if a limit is out of range, or the file has too many classes.
        """
        if any(node.op_type == resize_argmax_for(257) for node in model.graph.node):
            raise ValueError(
                "model: has more than 256 classes, and TensorRT no type for their labels; run it "
                "in ONNX Runtime"
            )
        batch = asked.max_batch
        if batch < 1:
            raise ValueError(f"max_batch: expected at least 1, got {batch!r}")
        image = next(entry for entry in model.graph.input if entry.name == "image")
        if image.type.tensor_type.shape.dim[0].dim_value == 1 and batch > 1:
            raise ValueError(f"max_batch: expected 1, all that this network takes, got {batch!r}")
        if policy.size is not None:
            if asked.max_side not in {None, max(policy.size)}:
                raise ValueError(
                    f"max_side: expected none, as this network takes {policy.size[0]} x "
                    f"{policy.size[1]} pixels only, got {asked.max_side!r}"
                )
            most = (batch, *policy.size, 3)
            return cls((1, *policy.size, 3), most, most)
        side = policy.padded(policy.max_side) if asked.max_side is None else asked.max_side
        if side < policy.multiple or side % policy.multiple:
            raise ValueError(
                f"max_side: expected a multiple of {policy.multiple} pixels, got {side!r}"
            )
        least = (1, policy.multiple, policy.multiple, 3)
        most = (batch, side, side, 3)
        return cls(least, most, most)


def plugin_library() -> Path | None:
    """The plugins built by ``make tensorrt``, or None."""
    path = Path(ppool.__file__).resolve().parent / PLUGIN
    return path if path.is_file() else None


def trtexec(model: Path, engine: Path, shapes: Shapes, plugin: Path | None) -> str:
    """The line that builds the engine: with the plugins, or through the function bodies."""
    words = ["trtexec", f"--onnx={model}", f"--saveEngine={engine}"]
    for name, shape in (("min", shapes.least), ("opt", shapes.usual), ("max", shapes.most)):
        words.append(f"--{name}Shapes=image:{'x'.join(map(str, shape))}")
    if plugin is not None:
        # Serialised with the engine, which then runs where the library is not.
        words += [f"--dynamicPlugins={plugin}", f"--setPluginsToSerialize={plugin}"]
    return shlex.join(words)


def _check_plugin_ready(model: onnx.ModelProto) -> None:
    """Refuse a file written before ``ResizeArgMax`` told TensorRT what its inputs are."""
    for node in model.graph.node:
        if (node.domain, node.op_type) != (DOMAIN, "ResizeArgMax"):
            continue
        missing = set(RESIZE_ATTRIBUTES) - {attribute.name for attribute in node.attribute}
        if missing:
            raise ValueError(
                f"model: node {node.name!r} lacks {sorted(missing)}, which TensorRT's plugin "
                "needs; export the model again, or use --no-plugin"
            )


def build_engine(model: onnx.ModelProto, shapes: Shapes, plugin: Path | None) -> bytes:
    """Build with TensorRT's Python package, for the GPU of this machine.

    Args:
        model: An exported file.
        shapes: Sizes that the engine takes.
        plugin: The plugin library to load and to store in the engine; ``None`` lets TensorRT take
            the function bodies inside the file.

    Returns:
        The serialised engine.

    Raises:
        TensorRtMissingError: without the package ``tensorrt``.
        ValueError: if TensorRT refuses the model, with its reasons.
    """
    if plugin is not None:
        _check_plugin_ready(model)
    try:
        trt: Any = import_module("tensorrt")
    except ImportError as error:
        raise TensorRtMissingError(
            "TensorRT is not installed here: install it (pip install tensorrt) on a machine with "
            "an NVIDIA GPU, or run a line above"
        ) from error
    logger = trt.Logger(trt.Logger.WARNING)
    if plugin is not None:
        trt.get_plugin_registry().load_library(str(plugin))
    builder = trt.Builder(logger)
    # Types are those of the file; from TensorRT 11 on there is no other way and no flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ValueError("model: TensorRT cannot read it: " + "; ".join(reasons))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", shapes.least, shapes.usual, shapes.most)
    config.add_optimization_profile(profile)
    if plugin is not None:
        config.plugins_to_serialize = [str(plugin)]
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("model: TensorRT built no engine; its log above says why")
    return bytes(engine)
