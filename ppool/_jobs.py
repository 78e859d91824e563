"""What the native kernels are asked to do: the structs of native/ppool_jobs.h, one class each.

Every tensor is dense, of the job's element type, and given as its address: on the host for the
kernels of the CPU, on the device for those of a GPU.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar

from ppool.window import Window

__all__ = [
    "DTYPES",
    "JOBS",
    "BackwardJob",
    "Branch",
    "ForwardJob",
    "Job",
    "Pooling",
    "ResizeArgMaxJob",
    "UnitBackwardJob",
    "UnitJob",
    "as_struct",
    "check_sizes",
]

# Element types by name, as the enum DType of native/ppool_params.h numbers them.
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}


@dataclass(frozen=True)
class Pooling:
    """What is pooled, and how (the struct Pool2d).

    Attributes:
        shape: (N, C, H, W) of x.
        window: The pooling window.
        signed: Whether planes are shifted by their negative minimum, or negatives count as 0.
        dtype: Element type of every tensor, a key of :data:`DTYPES`.
        channels_last: Whether x, y and their gradients are stored [N, H, W, C]. On the CPU only,
            where alpha is predicted and planes are not shifted.
    """

    shape: tuple[int, ...]
    window: Window
    signed: bool
    dtype: str
    channels_last: bool = False


@dataclass(frozen=True)
class Branch:
    """Constants of the side branch (Eq. 5), the struct SideBranch."""

    input_scale: float
    alpha_min: float
    alpha_max: float


@dataclass(frozen=True)
class ForwardJob:
    """Pool with given exponents (Eq. 1 and 2): x, alpha [N, C, H_out, W_out] -> y, shaped so."""

    name: ClassVar = "forward"
    pool: Pooling
    x: int
    alpha: int
    y: int


@dataclass(frozen=True)
class BackwardJob:
    """Gradients of that (Eq. 3 and 4): grad, x, alpha -> dx, dalpha."""

    name: ClassVar = "backward"
    pool: Pooling
    grad: int
    x: int
    alpha: int
    dx: int
    dalpha: int


@dataclass(frozen=True)
class UnitJob:
    """The unit of Figure 1: x, w_region [C, 1, kh, kw] and three parameters [C] -> y."""

    name: ClassVar = "unit"
    pool: Pooling
    branch: Branch
    x: int
    w_region: int
    prelu_slope: int
    w_point: int
    b_point: int
    y: int


@dataclass(frozen=True)
class UnitBackwardJob:
    """Gradients of the unit, its branch detached from x (Eq. 3 to 5).

    ``d_parameters`` [N, C, kh * kw + 3] receives for each plane the gradients of w_region,
    prelu_slope, w_point and b_point, in float64 for float64, else float32.
    """

    name: ClassVar = "unit_backward"
    pool: Pooling
    branch: Branch
    alpha_gradient_scale: float
    grad: int
    x: int
    w_region: int
    prelu_slope: int
    w_point: int
    b_point: int
    dx: int
    d_parameters: int


@dataclass(frozen=True)
class ResizeArgMaxJob:
    """The class of the largest resized logit: logits [n, classes, h, w] -> labels.

    With ``side`` above 1 they are of blocks, [n, classes, side, side, h / side, w / side]. Labels
    are uint8, or uint16 of more than 256 classes, of up to 65536; ``out_h`` and ``out_w`` are the
    size of the labels. On a GPU only.
    """

    name: ClassVar = "resize_argmax"
    n: int
    classes: int
    h: int
    w: int
    out_h: int
    out_w: int
    dtype: str
    side: int
    logits: int
    labels: int


Job = ForwardJob | BackwardJob | UnitJob | UnitBackwardJob | ResizeArgMaxJob
JOBS = (ForwardJob, BackwardJob, UnitJob, UnitBackwardJob, ResizeArgMaxJob)


class _Pool2d(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n", "c", "h", "w")),
        *((name, ctypes.c_int64 * 2) for name in ("kernel", "stride", "padding", "dilation")),
        *((name, ctypes.c_int32) for name in ("ceil_mode", "signed", "dtype", "channels_last")),
    )


class _SideBranch(ctypes.Structure):
    _fields_ = tuple((field.name, ctypes.c_float) for field in fields(Branch))


_SIZES = ("n", "classes", "h", "w", "out_h", "out_w")
_C_TYPES = {
    "pool": _Pool2d,
    "branch": _SideBranch,
    "alpha_gradient_scale": ctypes.c_float,
    "dtype": ctypes.c_int32,
    "side": ctypes.c_int32,
    **dict.fromkeys(_SIZES, ctypes.c_int64),
}


def _struct(job: type[Any]) -> type[ctypes.Structure]:
    members = [(field.name, _C_TYPES.get(field.name, ctypes.c_void_p)) for field in fields(job)]
    return type(job.__name__, (ctypes.Structure,), {"_fields_": members})


_STRUCTS = {job: _struct(job) for job in JOBS}
_FIELDS = {job: tuple(field.name for field in fields(job)) for job in JOBS}
_PAIR = ctypes.c_int64 * 2


# Of a network the same poolings come again and again, and a GPU waits for what is done here.
@lru_cache(maxsize=4096)
def _native_struct(value: Pooling | Branch) -> ctypes.Structure:
    if isinstance(value, Branch):
        return _SideBranch(value.input_scale, value.alpha_min, value.alpha_max)
    w = value.window
    pairs = (_PAIR(*numbers) for numbers in (w.kernel, w.stride, w.padding, w.dilation))
    flags = (w.ceil_mode, value.signed, _native(value.dtype), value.channels_last)
    return _Pool2d(*value.shape, *pairs, *flags)


def _native(value: Any) -> Any:
    """A field's value as its C type takes it."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Pooling | Branch):
        return _native_struct(value)
    if isinstance(value, str):
        if value not in DTYPES:
            raise ValueError(f"dtype: expected one of {sorted(DTYPES)}, got {value!r}")
        return DTYPES[value]
    return value


def as_struct(job: Job) -> ctypes.Structure:
    """The job as native code reads it.

    Raises:
        ValueError: if the element type is unknown.
    """
    kind = type(job)
    return _STRUCTS[kind](*[_native(getattr(job, name)) for name in _FIELDS[kind]])


def check_sizes(library: ctypes.CDLL, path: str) -> None:
    """Make sure that a library means the same structs.

    Raises:
        OSError: if it was built from other sources than these.
    """
    expected = [ctypes.sizeof(struct) for struct in _STRUCTS.values()]
    try:
        library.ppool_job_sizes.restype = ctypes.POINTER(ctypes.c_int64 * len(JOBS))
        found = list(library.ppool_job_sizes().contents)
    except AttributeError:
        found = []
    if found != expected:
        raise OSError(
            f"{path}: built from another version of ppool; build it again "
            "(pip install . for _native, make cuda for _cuda)"
        )
