"""Tables for a person: what an exported file holds, and how it compares with PyTorch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import ModelProto, TensorProto, ValueInfoProto
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ppool.export._files import read_exported
from ppool.metadata import InputPolicy, ModelMetadata

if TYPE_CHECKING:  # it needs torch
    from ppool.export._verify import Comparison

__all__ = ["comparison_table", "describe_policy", "print_info"]


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Every comparison of a verification, the failed ones in red."""
    table = Table("kernels", "image", "output", "difference", "allowed", title="ONNX vs PyTorch")
    for entry in comparisons:
        table.add_row(
            entry.kernels,
            "x".join(map(str, entry.image)),
            entry.output,
            f"{entry.difference:.3g}",
            f"{entry.allowed:.3g}",
            style=None if entry.agrees else "red",
        )
    return table


def print_info(path: Path, console: Console) -> None:
    """Print everything an exported file says of itself.

    Raises:
        ValueError: if it is not one.
        OSError: if it cannot be read.
    """
    model, description = read_exported(path)
    content = path.read_bytes()
    facts = Table.grid(padding=(0, 2))
    for key, value in {
        "name": description.name,
        "network": description.network,
        "file": f"{decimal(len(content))}, sha256 {hashlib.sha256(content).hexdigest()}",
        "inputs": "\n".join(_signature(entry) for entry in model.graph.input),
        "outputs": "\n".join(_signature(entry) for entry in model.graph.output),
        "images": describe_policy(description.input),
        "functions": _functions(model),
        "opsets": ", ".join(f"{e.domain or 'onnx'} {e.version}" for e in model.opset_import),
        "versions": ", ".join(f"{key} {value}" for key, value in description.versions.items()),
        "card": next(iter(description.card.splitlines()), "none"),
        **{f"training: {key}": str(value) for key, value in description.training.items()},
    }.items():
        facts.add_row(key, Text(value))
    console.print(facts)
    classes = Table("id", "class", "colour", title="classes", title_justify="left")
    for label in description.classes:
        swatch = Text.assemble(("   ", f"on {label.color}"), f" {label.color}")
        classes.add_row(str(label.id), label.name, swatch)
    console.print(classes)
    if description.stages:
        console.print(_stage_table(description))


def describe_policy(policy: InputPolicy) -> str:
    """What happens to an image before the network sees it."""
    how = "" if policy.resample == "bilinear" else f" ({policy.resample})"
    if policy.size is not None:
        height, width = policy.size
        fit = "" if policy.pad is None else "fit into "
        return f"resized{how} to {fit}{height} x {width} pixels"
    if policy.rounds:
        return (
            f"one side {policy.min_side} pixels{how}, whichever takes less, both rounded to "
            f"multiples of {policy.multiple}"
        )
    shorter = f"shorter side {policy.min_side}, " if policy.min_side else ""
    most = f"longer side at most {policy.max_side} pixels{how}"
    return f"{shorter}{most}, padded to multiples of {policy.multiple}"


def _stage_table(description: ModelMetadata) -> Table:
    table = Table(
        "output", "channels", "stride", "alpha", title="pooling stages", title_justify="left"
    )
    for stage in description.stages:
        span = f"{stage.alpha_min:g} to {stage.alpha_max:g}"
        table.add_row(stage.output, str(stage.channels), str(stage.stride), span)
    return table


def _signature(entry: ValueInfoProto) -> str:
    tensor = entry.type.tensor_type
    sizes = ", ".join(d.dim_param or str(d.dim_value) for d in tensor.shape.dim)
    return f"{entry.name}: {TensorProto.DataType.Name(tensor.elem_type).lower()} [{sizes}]"


def _functions(model: ModelProto) -> str:
    counts = Counter(node.op_type for node in model.graph.node)
    return ", ".join(f"{counts[body.name]} x {body.domain}.{body.name}" for body in model.functions)
