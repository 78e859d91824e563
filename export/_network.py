"""A network of others as it came, runnable, and ready to be wrapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, SparseTensorProto, TensorProto, ValueInfoProto, numpy_helper

from ppool.export._modernise import OLDEST_OPSET, TARGET_OPSET, graphs_inside, modernise, sort_nodes
from ppool.metadata import METADATA_KEY

__all__ = ["Network", "declared_sizes", "read_network", "silent", "words"]

# Of one protocol buffer.
MOST_BYTES = 2**31 - 1
_FATAL, _WARNING = 4, 2


@dataclass(frozen=True)
class Network:
    """A network as it came.

    Attributes:
        path: Of the file.
        model: Its content with all weights, in topological order, of opset 11 at least; declared
            shapes are as in the file.
        source: Where the file's own bytes are, or those with a size declared as 0 declared free.
    """

    path: Path
    model: ModelProto
    source: str | bytes

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """Runs the file's own bytes; made when first asked for, so that kinds can be told without.

        Raises:
            ValueError: if ONNX Runtime cannot load them.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        try:
            with silent():
                return onnxruntime.InferenceSession(
                    self.source, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:
            reason = words(error)
            raise ValueError(f"{self.path}: ONNX Runtime cannot load it: {reason}") from error

    @property
    def opset(self) -> int:
        """Of the standard operators of ``model``."""
        return _opset(self.model)

    @property
    def inputs(self) -> list[ValueInfoProto]:
        """Those that are no constants with names."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        return [entry for entry in self.model.graph.input if entry.name not in constants]

    @property
    def outputs(self) -> list[str]:
        """Names, in order."""
        return [entry.name for entry in self.model.graph.output]

    def run(self, name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """All outputs for one input that are arrays of numbers.

        Raises:
            ValueError: if ONNX Runtime cannot; the text is its own.
        """
        session = self.session
        try:
            with silent():
                results = session.run(self.outputs, {name: array})
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ValueError(words(error)) from error
        named = zip(self.outputs, results, strict=True)
        # Classifiers of other libraries give lists of dictionaries, and words.
        return {n: r for n, r in named if isinstance(r, np.ndarray) and r.dtype.kind in "fiub"}


def declared_sizes(entry: ValueInfoProto) -> list[int | None] | None:
    """The declared sizes of a tensor, ``None`` where free; ``None`` without a declared shape."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]


def read_network(path: Path) -> Network:
    """Load a network.

    Raises:
        ValueError: if it is none that can be adopted.
        OSError: if a file cannot be read.
    """
    model = _load(path)
    if METADATA_KEY in {entry.key for entry in model.metadata_props}:
        raise ValueError(f"{path}: is a file of ppool already; serve it as it is")
    opset = _opset(model)
    if opset < OLDEST_OPSET:
        raise ValueError(
            f"{path}: expected opset {OLDEST_OPSET} or newer, got {opset}; export the network again"
        )
    source = _source(path, model)
    _write_standard_domain_alike(model)
    try:
        sort_nodes(model.graph)
        if opset < TARGET_OPSET:
            modernise(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Network(path, model, source)


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ValueError(f"{path}: expected an ONNX file, got something else") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path}: expected an ONNX file, got something else, or an empty one")
    external = [t for t in _tensors(model) if t.data_location == TensorProto.EXTERNAL]
    beside = {
        path.parent / entry.value
        for tensor in external
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for file in beside:
        if not file.is_file():
            raise ValueError(f"{path}: its weights are in {file.name}, which is not beside it")
    total = path.stat().st_size + sum(file.stat().st_size for file in beside)
    if total > MOST_BYTES:
        raise ValueError(
            f"{path}: {total / 1e9:.1f} GB of weights; one ONNX file holds 2 GB at most. Convert "
            "the network to float16 first, which halves that"
        )
    if beside:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:
            raise ValueError(f"{path}: its weights cannot be read: {error}") from error
    for graph in graphs_inside(model.graph):
        graph.initializer.extend(_dense(sparse) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All that hold weights: initialisers, and what Constant nodes give."""
    for graph in graphs_inside(model.graph):
        yield from graph.initializer
    for holder in (*graphs_inside(model.graph), *model.functions):
        for node in holder.node:
            yield from (entry.t for entry in node.attribute if entry.HasField("t"))


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """A tensor of which only some values are written, with all the zeros between them."""
    values, places = (numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
    whole = np.zeros(list(sparse.dims), values.dtype)
    if places.ndim == 1:
        whole.reshape(-1)[places] = values
    else:
        whole[tuple(places.T)] = values
    return numpy_helper.from_array(whole, sparse.values.name)


def _source(path: Path, model: ModelProto) -> str | bytes:
    """The file, but where a size is declared as 0, which ONNX Runtime takes for no size at all."""
    odd = [
        dim
        for entry in model.graph.input
        for dim in entry.type.tensor_type.shape.dim
        if dim.HasField("dim_value") and dim.dim_value == 0
    ]
    for dim in odd:
        dim.ClearField("dim_value")
    return model.SerializeToString() if odd else str(path)


@contextmanager
def silent() -> Iterator[None]:
    """Keep what ONNX Runtime prints in red off the terminal: its errors are raised, too."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)  # its own default


def words(error: Exception) -> str:
    """ONNX Runtime's message without its codes, in one line."""
    text = " ".join(str(error).split())
    return re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)


def _write_standard_domain_alike(model: ModelProto) -> None:
    """``ai.onnx`` is another name of the domain without one."""
    for entry in model.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    bodies = [holder.node for holder in graphs_inside(model.graph)]
    bodies += [function.node for function in model.functions]
    for node in chain.from_iterable(bodies):
        if node.domain == "ai.onnx":
            node.domain = ""


def _opset(model: ModelProto) -> int:
    found = [entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    return max(found, default=0)
