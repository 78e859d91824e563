"""Finds the native library and calls its C entries; knows addresses, not tensors."""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ppool.window import Window

__all__ = [
    "DTYPES",
    "Branch",
    "LibraryInfo",
    "Pooling",
    "custom_ops_library",
    "library_info",
    "ppool2d_backward",
    "ppool2d_forward",
    "ppool2d_unit",
    "ppool2d_unit_backward",
]

LIBRARY_VARIABLE = "PPOOL_LIBRARY"

# Element types by name, as the enum DType of native/ppool_params.h numbers them.
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}

# The enum Status of native/ppool_params.h.
STATUS = {1: "an argument is out of range", 2: "out of memory"}

logger = logging.getLogger("ppool")


@dataclass(frozen=True)
class LibraryInfo:
    """Version of the native library and the instruction set it uses on this processor."""

    version: str
    instruction_set: str


class _Pool2d(ctypes.Structure):
    """The struct Pool2d of native/ppool_params.h."""

    _fields_ = (
        ("n", ctypes.c_int64),
        ("c", ctypes.c_int64),
        ("h", ctypes.c_int64),
        ("w", ctypes.c_int64),
        ("kernel", ctypes.c_int64 * 2),
        ("stride", ctypes.c_int64 * 2),
        ("padding", ctypes.c_int64 * 2),
        ("dilation", ctypes.c_int64 * 2),
        ("ceil_mode", ctypes.c_int32),
        ("is_signed", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Pooling:
    """What is pooled, and how.

    Attributes:
        shape: (N, C, H, W) of x.
        window: The pooling window.
        signed: Whether planes are shifted by their negative minimum, or negatives count as 0.
        dtype: Element type of every tensor, a key of :data:`DTYPES`.
    """

    shape: tuple[int, ...]
    window: Window
    signed: bool
    dtype: str


@dataclass(frozen=True)
class Branch:
    """Constants of the side branch (Eq. 5)."""

    input_scale: float
    alpha_min: float
    alpha_max: float


class _SideBranch(ctypes.Structure):
    """The struct SideBranch of native/ppool_params.h."""

    _fields_ = tuple((name, ctypes.c_float) for name in ("input_scale", "alpha_min", "alpha_max"))


def _addresses(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


# The structs of native/ppool_jobs.h.
class _UnitJob(ctypes.Structure):
    _fields_ = (
        ("pool", _Pool2d),
        ("branch", _SideBranch),
        *_addresses("x", "w_region", "prelu_slope", "w_point", "b_point", "y", "alpha"),
    )


class _UnitBackwardJob(ctypes.Structure):
    _fields_ = (
        ("pool", _Pool2d),
        ("branch", _SideBranch),
        ("alpha_gradient_scale", ctypes.c_float),
        *_addresses("grad", "x", "w_region", "prelu_slope", "w_point", "b_point"),
        *_addresses("dx", "d_parameters"),
    )


@cache
def custom_ops_library() -> str | None:
    """Absolute path of the native library, for ``SessionOptions.register_custom_ops_library``.

    The environment variable ``PPOOL_LIBRARY`` names another file; set but empty, it turns the
    native library off. The answer is found once and kept.

    Returns:
        The path, or None if the library was not built; that is logged once as a warning.

    Raises:
        ValueError: if ``PPOOL_LIBRARY`` names no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        chosen = Path(override)
        if not chosen.is_file():
            raise ValueError(
                f"{LIBRARY_VARIABLE}: expected the path of the native library, got {override!r}; "
                f"unset it to use the one built with the package"
            )
        return str(chosen.resolve())
    built = sorted(Path(__file__).resolve().parent.glob("_native*"))
    if override is None and built:
        return str(built[0])
    logger.warning(
        "the native library is %s: pooling uses the slower portable path",
        "not built (install a C++17 compiler and reinstall ppool)"
        if override is None
        else f"turned off by {LIBRARY_VARIABLE}",
    )
    return None


@cache
def _entries() -> ctypes.CDLL:
    path = custom_ops_library()
    if path is None:
        raise RuntimeError(
            "the native library is not built; install a C++17 compiler and reinstall ppool"
        )
    library = ctypes.CDLL(path)
    shape, address, int32 = ctypes.POINTER(_Pool2d), ctypes.c_void_p, ctypes.c_int32
    library.ppool2d_forward.argtypes = [shape, int32, *[address] * 3, int32]
    library.ppool2d_backward.argtypes = [shape, int32, *[address] * 5, int32]
    library.ppool2d_unit.argtypes = [ctypes.POINTER(_UnitJob), *[int32] * 3]
    library.ppool2d_unit_backward.argtypes = [ctypes.POINTER(_UnitBackwardJob), *[int32] * 3]
    library.ppool_version.restype = ctypes.c_char_p
    library.ppool_instruction_set.restype = ctypes.c_char_p
    return library


def library_info() -> LibraryInfo | None:
    """What the native library says of itself, or None without one."""
    if custom_ops_library() is None:
        return None
    version: bytes = _entries().ppool_version()
    instruction_set: bytes = _entries().ppool_instruction_set()
    return LibraryInfo(version.decode(), instruction_set.decode())


def _pool2d(pooling: Pooling) -> _Pool2d:
    window, pair = pooling.window, ctypes.c_int64 * 2
    pairs = (window.kernel, window.stride, window.padding, window.dilation)
    return _Pool2d(
        *pooling.shape, *(pair(*value) for value in pairs), window.ceil_mode, pooling.signed
    )


def _side_branch(branch: Branch) -> _SideBranch:
    return _SideBranch(branch.input_scale, branch.alpha_min, branch.alpha_max)


def _call(name: str, pooling: Pooling, problem: ctypes.Structure, *rest: int) -> None:
    if pooling.dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {sorted(DTYPES)}, got {pooling.dtype!r}")
    entry = getattr(_entries(), name)
    status: int = entry(ctypes.byref(problem), DTYPES[pooling.dtype], *rest)
    if status:
        reason = STATUS.get(status, f"status {status}")
        raise RuntimeError(f"native pooling failed: {reason} in {pooling!r}")


def ppool2d_forward(pooling: Pooling, *addresses: int, threads: int) -> None:
    """Pool with given exponents (Eq. 1 and 2), on the CPU.

    Args:
        pooling: The problem.
        *addresses: x and alpha [N, C, H_out, W_out], then y, shaped as alpha, to write.
        threads: The most threads to use.

    Raises:
        ValueError: if the element type is unknown.
        RuntimeError: if there is no native library or it reports an error.
    """
    _call("ppool2d_forward", pooling, _pool2d(pooling), *addresses, threads)


def ppool2d_backward(pooling: Pooling, *addresses: int, threads: int) -> None:
    """Write the gradients of Eq. 3 and 4; errors as :func:`ppool2d_forward`.

    Args:
        pooling: The problem.
        *addresses: grad, x and alpha, then dx and dalpha to write.
        threads: The most threads to use.
    """
    _call("ppool2d_backward", pooling, _pool2d(pooling), *addresses, threads)


def ppool2d_unit(
    pooling: Pooling, branch: Branch, *addresses: int, channels_last: bool, threads: int
) -> None:
    """Pool with the exponents of the side branch (Figure 1); errors as :func:`ppool2d_forward`.

    Args:
        pooling: The problem.
        branch: Constants of the side branch.
        *addresses: x, w_region [C, 1, kh, kw], prelu_slope, w_point and b_point [C], then y
            [N, C, H_out, W_out] to write.
        channels_last: Whether x and y are stored [N, H, W, C]; not if ``signed``.
        threads: The most threads to use.
    """
    job = _UnitJob(_pool2d(pooling), _side_branch(branch), *addresses, None)
    _call("ppool2d_unit", pooling, job, channels_last, threads)


def ppool2d_unit_backward(
    pooling: Pooling,
    branch: Branch,
    *addresses: int,
    alpha_gradient_scale: float,
    channels_last: bool,
    threads: int,
) -> None:
    """Write the gradients of :func:`ppool2d_unit`, its branch detached from x (Eq. 3 to 5).

    Args:
        pooling: The problem.
        branch: Constants of the side branch.
        *addresses: grad, shaped as y, then x and the four parameters, then to write dx and
            d_parameters [N, C, kh * kw + 3], for each plane the gradients of w_region,
            prelu_slope, w_point and b_point, in float64 for float64, else float32.
        alpha_gradient_scale: Factor on the gradient of alpha.
        channels_last: Whether grad, x and dx are stored [N, H, W, C]; not if ``signed``.
        threads: The most threads to use.
    """
    job = _UnitBackwardJob(_pool2d(pooling), _side_branch(branch), alpha_gradient_scale, *addresses)
    _call("ppool2d_unit_backward", pooling, job, channels_last, threads)
