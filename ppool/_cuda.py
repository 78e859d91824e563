"""Finds the CUDA kernels and calls their entries; knows addresses and streams, not tensors."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from ppool import _library
from ppool._library import Branch, Pooling, _addresses, _pool2d, _side_branch, _UnitJob

__all__ = ["DTYPES", "Branch", "Kernels", "Pooling", "cuda_kernels"]

LIBRARY_VARIABLE = "PPOOL_CUDA_LIBRARY"

# The kernels have no float64 form; it is a testing type, and slow on a GPU.
DTYPES = ("float32", "float16", "bfloat16")


# The structs of native/ppool_jobs.h.
class _ForwardJob(ctypes.Structure):
    _fields_ = (("pool", _library._Pool2d), *_addresses("x", "alpha", "y"))


class _BackwardJob(ctypes.Structure):
    _fields_ = (
        ("pool", _library._Pool2d),
        *_addresses("grad", "x", "alpha", "dx", "dalpha"),
    )


class _ResizeArgMaxJob(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n", "classes", "h", "w", "out_h", "out_w")),
        *_addresses("logits", "labels"),
    )


class Kernels:
    """The entries of one built library (native/cuda/launch.h).

    Every call takes device addresses of dense tensors of one element type and a ``stream``, the
    address of a ``cudaStream_t`` (0 is the default stream). It starts the work and returns.

    Attributes:
        path: The library's file.
        emulated: Whether the kernels run on the host, on host addresses, for tests without a GPU.

    Raises:
        OSError: if the library cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._entries = ctypes.CDLL(path)
        self._entries.ppool_cuda_error.restype = ctypes.c_char_p
        self.emulated = bool(self._entries.ppool_cuda_is_emulated())

    def forward(self, pooling: Pooling, *addresses: int, stream: int = 0) -> None:
        """Pool with given exponents (Eq. 1 and 2).

        Args:
            pooling: The problem.
            *addresses: x and alpha [N, C, H_out, W_out], then y, shaped as alpha, to write.
            stream: Where to run.

        Raises:
            ValueError: if the kernels have no form for the element type.
            RuntimeError: if CUDA reports an error.
        """
        self._call("forward", _ForwardJob(_pool2d(pooling), *addresses), pooling.dtype, stream)

    def unit(self, pooling: Pooling, branch: Branch, *addresses: int, stream: int = 0) -> None:
        """Pool with the exponents of the side branch (Figure 1); errors as :meth:`forward`.

        Args:
            pooling: The problem.
            branch: Constants of the side branch.
            *addresses: x, w_region [C, 1, kh, kw], prelu_slope, w_point and b_point [C], then y
                and alpha [N, C, H_out, W_out] to write; alpha may be 0.
            stream: Where to run.
        """
        job = _UnitJob(_pool2d(pooling), _side_branch(branch), *addresses)
        self._call("unit", job, pooling.dtype, stream)

    def backward(self, pooling: Pooling, *addresses: int, stream: int = 0) -> None:
        """Write the gradients of Eq. 3 and 4; errors as :meth:`forward`.

        Args:
            pooling: The problem.
            *addresses: grad, x and alpha, then dx and dalpha to write.
            stream: Where to run.
        """
        self._call("backward", _BackwardJob(_pool2d(pooling), *addresses), pooling.dtype, stream)

    def resize_argmax(
        self,
        logits: int,
        labels: int,
        *,
        shape: tuple[int, ...],
        size: tuple[int, int],
        dtype: str,
        stream: int = 0,
    ) -> None:
        """Write the class of the largest resized logit; errors as :meth:`forward`.

        Args:
            logits: Address of [N, K, h, w], its ``shape``.
            labels: Address of uint8 [N, H, W] to write.
            shape: (N, K, h, w), with 1 to 256 classes K.
            size: (H, W).
            dtype: Element type of the logits.
            stream: Where to run.
        """
        job = _ResizeArgMaxJob(*shape, *size, logits, labels)
        self._call("resize_argmax", job, dtype, stream)

    def _call(self, name: str, job: ctypes.Structure, dtype: str, stream: int) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {DTYPES} on a GPU, got {dtype!r}")
        entry = getattr(self._entries, f"ppool_cuda_{name}")
        code = _library.DTYPES[dtype]
        error: int = entry(ctypes.byref(job), ctypes.c_int32(code), ctypes.c_void_p(stream))
        if error:
            reason: bytes = self._entries.ppool_cuda_error(error)
            raise RuntimeError(f"CUDA pooling failed: {reason.decode()} (cudaError {error})")


@cache
def cuda_kernels() -> Kernels | None:
    """The kernels built with the package, or None: then PyTorch's own operations do the work.

    The environment variable ``PPOOL_CUDA_LIBRARY`` names another file; set but empty, it turns the
    kernels off. The answer is found once and kept.

    Raises:
        ValueError: if the variable names no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override == "":
        return None
    built = Path(override or Path(__file__).resolve().parent / "_cuda.so")
    if built.is_file():
        return Kernels(str(built.resolve()))
    if override:
        raise ValueError(
            f"{LIBRARY_VARIABLE}: expected the path of the CUDA kernels, got {override!r}; "
            f"unset it to use those built by: make cuda"
        )
    return None
