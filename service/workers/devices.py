"""Why a GPU that was asked for cannot be used."""

from __future__ import annotations

import ctypes

__all__ = ["why_no_gpu"]


def why_no_gpu() -> str:
    """The reason, for people, once ONNX Runtime has fallen back to the CPU."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return (
            "the onnxruntime that is installed has no CUDA; install the extra serve-gpu in place "
            "of serve"
        )
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver here (libcuda.so.1)"
    found = ctypes.c_int(0)
    # CUDA_VISIBLE_DEVICES leaves a worker no other one than its own.
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(found)) or not found.value:
        return "the NVIDIA driver finds no GPU of that number; nvidia-smi lists those it finds"
    return "ONNX Runtime could not start CUDA; what it printed says why"
