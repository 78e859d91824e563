"""NumPy arrays in and out of the CUDA kernels, run on the host."""

import shutil
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ppool._gpu import Kernels
from ppool._jobs import (
    BackwardJob,
    Branch,
    ForwardJob,
    Pooling,
    ResizeArgMaxJob,
    UnitBackwardJob,
    UnitJob,
)
from ppool.native.build import NATIVE, build_emulated
from ppool.window import Window
from tests.native.entries import Array

ROOT = Path(__file__).parents[2]

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

# -fsanitize-trap needs no library: a bad shift, overflow or bound ends the process.
FLAGS = ["-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]


@cache
def emulated_library() -> Path:
    """The kernels built for the host, with the compiler watching for undefined behaviour.

    Built once for all processes of a run, and again when a source changes.
    """
    sources = sorted([*NATIVE.glob("*.h"), *(NATIVE / "cuda").iterdir()])
    digest = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    library = ROOT / "build" / f"emulated-{digest}.so"
    if not library.is_file():
        library.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=library.parent) as folder:
            build_emulated(Path(folder) / "emulated.so", FLAGS).replace(library)
    return library


@cache
def kernels() -> Kernels:
    return Kernels(str(emulated_library()))


def pooling(x: Array, window: Window, signed: bool = False) -> Pooling:
    return Pooling(x.shape, window, signed, x.dtype.name)


def forward(x: Array, alpha: Array, window: Window, *, signed: bool = False) -> Array:
    y = np.full_like(alpha, -7)
    addresses = (x.ctypes.data, alpha.ctypes.data, y.ctypes.data)
    kernels().run(ForwardJob(pooling(x, window, signed), *addresses))
    return y


def backward(
    grad: Array, x: Array, alpha: Array, window: Window, *, signed: bool = False
) -> tuple[Array, Array]:
    dx, dalpha = np.full_like(x, -7), np.full_like(alpha, -7)
    addresses = (tensor.ctypes.data for tensor in (grad, x, alpha, dx, dalpha))
    kernels().run(BackwardJob(pooling(x, window, signed), *addresses))
    return dx, dalpha


def unit(
    x: Array, parameters: list[Array], window: Window, branch: Branch, *, signed: bool = False
) -> Array:
    """``parameters`` are w_region, prelu_slope, w_point and b_point."""
    y = np.full((*x.shape[:2], *window.output_size(*x.shape[2:])), -7, x.dtype)
    addresses = (tensor.ctypes.data for tensor in (x, *parameters, y))
    kernels().run(UnitJob(pooling(x, window, signed), branch, *addresses))
    return y


def unit_backward(
    grad: Array,
    x: Array,
    parameters: list[Array],
    window: Window,
    branch: Branch,
    *,
    signed: bool = False,
    alpha_gradient_scale: float = 1.0,
) -> tuple[Array, NDArray[np.float32]]:
    """dx, and of each plane the gradients of its channel's parameters, in a row."""
    dx, d_alpha = np.full_like(x, -7), np.full(grad.shape, -7, np.float32)
    taps = window.kernel[0] * window.kernel[1]
    parts = np.full((*x.shape[:2], taps + 3), -7, np.float32)
    addresses = (tensor.ctypes.data for tensor in (grad, x, *parameters, dx, parts))
    job = UnitBackwardJob(pooling(x, window, signed), branch, alpha_gradient_scale, *addresses)
    kernels().run(job, room=d_alpha.ctypes.data)
    return dx, parts


def resize_argmax(logits: Array, size: tuple[int, int]) -> NDArray[Any]:
    """Of logits [N, K, h, w], or [N, K, s, s, h, w] of blocks."""
    dtype = np.uint8 if logits.shape[1] <= 256 else np.uint16
    labels = np.full((len(logits), *size), -1).astype(dtype)
    addresses = (logits.ctypes.data, labels.ctypes.data)
    side = logits.shape[2] if logits.ndim == 6 else 1
    pixels = *logits.shape[:2], *(length * side for length in logits.shape[-2:])
    kernels().run(ResizeArgMaxJob(*pixels, *size, logits.dtype.name, side, *addresses))
    return labels


def misaligned(values: Array) -> Array:
    """A copy whose first element is one element past a 16-byte boundary."""
    room = np.empty(values.size + 32, values.dtype)
    skip = (-room.ctypes.data % 16) // values.itemsize + 1
    copy = room[skip : skip + values.size].reshape(values.shape)
    copy[...] = values
    return copy
