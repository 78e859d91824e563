"""Networks whose weights are stored oddly: quantised, halved, beside the file, in its nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.service.zoo import Kept, Net, nchw, node

__all__ = ["FILES"]

Writer = Callable[[Path], Path]


def beside(folder: Path) -> Path:
    path = folder / "external.onnx"
    onnx.save(Net()(), path, save_as_external_data=True, location="external.bin", size_threshold=64)
    return path


def below(folder: Path) -> Path:
    (folder / "data").mkdir()
    path = folder / "below.onnx"
    place = "data/weights.bin"
    onnx.save(Net()(), path, save_as_external_data=True, location=place, size_threshold=0)
    return path


def a_file_each(folder: Path) -> Path:
    path = folder / "each.onnx"
    options = {"all_tensors_to_one_file": False, "size_threshold": 0}
    onnx.save(Net()(), path, save_as_external_data=True, **options)
    return path


def constants_beside(folder: Path) -> Path:
    """Weights that nodes give, in a file of their own."""
    model, path = Net()(), folder / "constants.onnx"
    tensors = [*model.graph.initializer]
    del model.graph.initializer[:]
    for tensor in tensors:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    options = {"location": "constants.bin", "size_threshold": 0, "convert_attribute": True}
    onnx.save(model, path, save_as_external_data=True, **options)
    return path


def sparse(*, places: bool) -> Writer:
    """Weights of which only what is not zero is written, at one index or at one for each axis."""

    def write(folder: Path) -> Path:
        model, path = Net()(), folder / "sparse.onnx"
        tensor = model.graph.initializer[0]
        array = numpy_helper.to_array(tensor)
        where = np.argwhere(array) if places else np.flatnonzero(array)
        values = numpy_helper.from_array(array[array != 0], tensor.name)
        indices = numpy_helper.from_array(where.astype(np.int64), "where")
        del model.graph.initializer[0]
        held = helper.make_sparse_tensor(values, indices, array.shape)
        model.graph.sparse_initializer.append(held)
        onnx.save(model, path)
        return path

    return write


def halved(*, whole: bool) -> Writer:
    def write(folder: Path) -> Path:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        path = folder / "half.onnx"
        onnx.save(convert_float_to_float16(Net()(), keep_io_types=not whole), path)
        return path

    return write


def at_run_time(kind: str, operator: str = "Conv") -> Writer:
    def write(folder: Path) -> Path:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source, target = folder / "plain.onnx", folder / "dynamic.onnx"
        onnx.save(projected() if operator == "MatMul" else Net()(), source)
        quantize_dynamic(
            source, target, op_types_to_quantize=[operator], weight_type=QuantType[kind]
        )
        return target

    return write


def projected(channels: int = 4) -> onnx.ModelProto:
    """With a last layer that is a matrix, as transformers have."""
    matrix = np.random.default_rng(3).standard_normal((channels, 5)).astype(np.float32)
    after = [
        node("Transpose", ["score"], "last", perm=[0, 2, 3, 1]),
        node("MatMul", ["last", "matrix"], "five"),
        node("Transpose", ["five"], "y", perm=[0, 3, 1, 2]),
    ]
    return Net(classes=channels, after=after, output="y", constants={"matrix": matrix})()


def four_bits(folder: Path) -> Path:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer, path = MatMulNBitsQuantizer(projected(32), block_size=32), folder / "four.onnx"
    quantizer.process()
    onnx.save(quantizer.model.model, path)
    return path


def quantised(style: str, activations: str, weights: str, **settings: Any) -> Writer:
    def write(folder: Path) -> Path:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
                self.left = iter([{"x": nchw(image)} for image in images])

            def get_next(self) -> Any:
                return next(self.left, None)

        source, target = folder / "plain.onnx", folder / f"{style}.onnx"
        onnx.save(Net()(), source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat[style],
            activation_type=QuantType[activations],
            weight_type=QuantType[weights],
            **settings,
        )
        return target

    return write


COARSE = 1e-2
FILES: Sequence[Kept] = [
    Kept("weights beside it", beside),
    Kept("weights in a folder below", below),
    Kept("a file for each weight", a_file_each),
    Kept("weights of nodes beside it", constants_beside),
    Kept("sparse weights", sparse(places=False)),
    Kept("sparse weights, an index for each axis", sparse(places=True)),
    Kept("halved by ONNX Runtime's tool", halved(whole=False), allowed=COARSE),
    Kept(
        "halved, at both ends too",
        halved(whole=True),
        feed=lambda image: nchw(image).astype(np.float16),
        allowed=COARSE,
    ),
    Kept("quantised at run time", at_run_time("QUInt8"), allowed=COARSE),
    Kept("quantised at run time, signed", at_run_time("QInt8"), allowed=COARSE),
    Kept("quantised at run time, a matrix", at_run_time("QInt8", "MatMul"), allowed=COARSE),
    Kept("4 bits in blocks", four_bits, allowed=COARSE),
    Kept("QDQ", quantised("QDQ", "QUInt8", "QInt8"), allowed=COARSE),
    Kept("QDQ, signed", quantised("QDQ", "QInt8", "QInt8"), allowed=COARSE),
    Kept(
        "QDQ, a scale for each channel",
        quantised("QDQ", "QUInt8", "QInt8", per_channel=True),
        allowed=COARSE,
    ),
    Kept("QDQ, 16 bits", quantised("QDQ", "QUInt16", "QInt8"), allowed=COARSE),
    Kept("QOperator", quantised("QOperator", "QUInt8", "QUInt8"), allowed=COARSE),
    Kept(
        "QOperator, a scale for each channel",
        quantised("QOperator", "QUInt8", "QInt8", per_channel=True),
        allowed=COARSE,
    ),
    Kept(
        "yes and no",
        Net(
            classes=1,
            after=[node("Greater", ["score", "level"], "y")],
            output="y",
            gives=TensorProto.BOOL,
            constants={"level": np.zeros((), np.float32)},
        )(),
        read=lambda output, size: output[0, 0].repeat(2, 0).repeat(2, 1),
    ),
]
