"""Batches for a GPU are put together in page-locked memory, which it reads without a detour."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading

import numpy as np
from numpy.typing import NDArray

__all__ = ["Staging"]

_logger = logging.getLogger("ppool.service")


class Staging(threading.local):
    """One buffer for each thread; page-locked where the CUDA runtime gives such memory.

    The driver copies other memory into page-locked buffers of its own first, and the process waits.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def stack(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The images, all [H, W, 3], as [N, H, W, 3]; valid until the next call on this thread."""
        shape = (len(images), *images[0].shape)
        size = math.prod(shape)
        if size > self._buffer.size:
            # In doublings, so that what was too small adds up to no more than what is in use.
            self._buffer = _allocated(1 << (size - 1).bit_length())
        return np.stack(images, out=self._buffer[:size].reshape(shape))


def _allocated(size: int) -> NDArray[np.uint8]:
    """``size`` bytes, never freed: page-locked ones may be in use by the device."""
    address = ctypes.c_void_p()
    runtime = _runtime()
    if runtime is None:
        reason = "the CUDA runtime is not there"
    elif status := runtime.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), 0):
        reason = f"CUDA error {status}"
    else:
        memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
        return np.ctypeslib.as_array(memory)
    _logger.warning("no page-locked memory, so copies to the GPU take longer: %s", reason)
    return np.empty(size, np.uint8)


def _runtime() -> ctypes.CDLL | None:
    """The CUDA runtime that ONNX Runtime has loaded, and no other that may lie around."""
    for name in ("libcudart.so.13", "libcudart.so.12"):
        try:
            return ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        except OSError:
            continue
    return None
