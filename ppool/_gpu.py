"""Finds the CUDA kernels and runs jobs on a GPU; knows addresses and streams, not tensors."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from ppool._jobs import Job, ResizeArgMaxJob, UnitBackwardJob, as_struct, check_sizes

__all__ = ["DTYPES", "Kernels", "cuda_kernels"]

LIBRARY_VARIABLE = "PPOOL_CUDA_LIBRARY"

# The kernels have no float64 form; it is a testing type, and slow on a GPU.
DTYPES = ("float32", "float16", "bfloat16")


class Kernels:
    """The entries of one built library (native/cuda/launch.h).

    Attributes:
        path: The library's file.
        emulated: Whether the kernels run on the host, on host addresses, for tests without a GPU.

    Raises:
        OSError: if the library cannot be loaded, or is of another version.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._entries = ctypes.CDLL(path)
        check_sizes(self._entries, path)
        self._entries.ppool_cuda_error.restype = ctypes.c_char_p
        self.emulated = bool(self._entries.ppool_cuda_is_emulated())

    def run(self, job: Job, stream: int = 0, *, room: int = 0) -> None:
        """Start a job and return; it may still be running.

        Args:
            job: Any, on device addresses.
            stream: Address of the ``cudaStream_t`` to run on; 0 is the default stream.
            room: For a ``UnitBackwardJob``, the address of one float32 a pooled element.

        Raises:
            ValueError: if the kernels have no form for the element type.
            RuntimeError: if CUDA reports an error.
        """
        dtype = job.dtype if isinstance(job, ResizeArgMaxJob) else job.pool.dtype
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {DTYPES} on a GPU, got {dtype!r}")
        entry = getattr(self._entries, f"ppool_cuda_{job.name}")
        needed = [ctypes.c_void_p(room)] if isinstance(job, UnitBackwardJob) else []
        struct = as_struct(job)
        error: int = entry(ctypes.byref(struct), *needed, ctypes.c_void_p(stream))
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
