"""NumPy arrays in and out of the native library's C entries."""

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from ppool import _library
from ppool._jobs import BackwardJob, ForwardJob, Pooling
from ppool.window import Window

Array = NDArray[np.generic]

DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

needs_library = pytest.mark.skipif(
    _library.custom_ops_library() is None, reason="the native library is not built"
)


def stored(values: ArrayLike, dtype: str) -> Array:
    """The values as the kernels see them: dense, rounded to the storage type."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(np.asarray(values).astype(DTYPES[dtype]))


def forward(
    x: Array, alpha: Array, window: Window, *, signed: bool = False, threads: int = 1
) -> Array:
    y = np.full_like(alpha, -7)
    pooling = Pooling(x.shape, window, signed, x.dtype.name)
    addresses = (tensor.ctypes.data for tensor in (x, alpha, y))
    _library.run(ForwardJob(pooling, *addresses), threads)
    return y


def backward(
    grad: Array, x: Array, alpha: Array, window: Window, *, signed: bool = False, threads: int = 1
) -> tuple[Array, Array]:
    dx, dalpha = np.full_like(x, -7), np.full_like(alpha, -7)
    pooling = Pooling(x.shape, window, signed, x.dtype.name)
    addresses = (tensor.ctypes.data for tensor in (grad, x, alpha, dx, dalpha))
    _library.run(BackwardJob(pooling, *addresses), threads)
    return dx, dalpha


def wide(values: Array) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        return values.astype(np.float64)


def same_bits(first: Array, second: Array) -> bool:
    return first.tobytes() == second.tobytes()
