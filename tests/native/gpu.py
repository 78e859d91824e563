"""NumPy arrays in and out of the CUDA kernels, run on the host."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray

from ppool._cuda import Branch, Kernels, Pooling
from ppool.native.build import build_emulated
from ppool.window import Window
from tests.native.entries import Array

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

_folder = TemporaryDirectory(prefix="ppool-emulated-")


@cache
def emulated_library() -> Path:
    """The kernels built for the host, with the compiler watching for undefined behaviour."""
    # -fsanitize-trap needs no library: a bad shift, overflow or bound ends the process.
    flags = ["-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    return build_emulated(Path(_folder.name) / "emulated.so", flags)


@cache
def kernels() -> Kernels:
    return Kernels(str(emulated_library()))


def pooling(x: Array, window: Window, signed: bool = False) -> Pooling:
    return Pooling(x.shape, window, signed, x.dtype.name)


def forward(x: Array, alpha: Array, window: Window, *, signed: bool = False) -> Array:
    y = np.full_like(alpha, -7)
    addresses = (x.ctypes.data, alpha.ctypes.data, y.ctypes.data)
    kernels().forward(pooling(x, window, signed), *addresses)
    return y


def backward(
    grad: Array, x: Array, alpha: Array, window: Window, *, signed: bool = False
) -> tuple[Array, Array]:
    dx, dalpha = np.full_like(x, -7), np.full_like(alpha, -7)
    addresses = (tensor.ctypes.data for tensor in (grad, x, alpha, dx, dalpha))
    kernels().backward(pooling(x, window, signed), *addresses)
    return dx, dalpha


def unit(
    x: Array, parameters: list[Array], window: Window, branch: Branch, *, signed: bool = False
) -> tuple[Array, Array]:
    """``parameters`` are w_region, prelu_slope, w_point and b_point; the results y and alpha."""
    shape = (*x.shape[:2], *window.output_size(*x.shape[2:]))
    y, alpha = np.full(shape, -7, x.dtype), np.full(shape, -7, x.dtype)
    addresses = (tensor.ctypes.data for tensor in (x, *parameters, y, alpha))
    kernels().unit(pooling(x, window, signed), branch, *addresses)
    return y, alpha


def resize_argmax(logits: Array, size: tuple[int, int]) -> NDArray[np.uint8]:
    labels = np.full((len(logits), *size), 255, np.uint8)
    kernels().resize_argmax(
        logits.ctypes.data,
        labels.ctypes.data,
        shape=logits.shape,
        size=size,
        dtype=logits.dtype.name,
    )
    return labels


def misaligned(values: Array) -> Array:
    """A copy whose first element is one element past a 16-byte boundary."""
    room = np.empty(values.size + 32, values.dtype)
    skip = (-room.ctypes.data % 16) // values.itemsize + 1
    copy = room[skip : skip + values.size].reshape(values.shape)
    copy[...] = values
    return copy
