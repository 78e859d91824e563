"""``Window``, a checked pooling window, and its size arithmetic: the one place it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

__all__ = ["Window", "pair", "pooled_size", "positive"]


def _integer(value: Any, name: str) -> int:
    """Return an int, or a number of NumPy or PyTorch that is one.

    Raises:
        TypeError: if it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected ints, got {value!r}") from error


def positive(value: Any, name: str) -> int:
    """Return ``value`` as an int of at least 1.

    Raises:
        ValueError: if it is less.
        TypeError: if it is no int.
    """
    number = _integer(value, name)
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return number


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Return ``value`` as ``(height, width)``; an int counts for both.

    Raises:
        ValueError: if a sequence has other than one or two entries.
        TypeError: if an entry is not an int.
    """
    entries = tuple(value) if isinstance(value, Iterable) else (value,)
    if len(entries) not in {1, 2}:
        raise ValueError(f"{name}: expected one or two ints, got {value!r}")
    return _integer(entries[0], name), _integer(entries[-1], name)


def pooled_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Length of one pooled axis, exactly as ``torch.nn.MaxPool2d`` computes it.

    Raises:
        ValueError: if no window fits, saying which input length would.
    """
    extent = dilation * (kernel - 1) + 1
    overhang = stride - 1 if ceil_mode else 0
    free = size + 2 * padding + overhang - extent
    if size < 1 or free < 0:
        raise ValueError(
            f"input of {size} is too small for a window of {extent} with padding {padding}; "
            f"use at least {max(extent - 2 * padding - overhang, 1)}"
        )
    pooled = free // stride + 1
    # A window may not start in the right padding (torch, pooling_output_shape).
    if ceil_mode and (pooled - 1) * stride >= size + padding:
        pooled -= 1
    return pooled


@dataclass(frozen=True)
class Window:
    """A checked pooling window; every field is ``(height, width)`` in pixels.

    Raises:
        ValueError: if a kernel, stride or dilation is below 1, or padding is negative or more
            than half the kernel (a window would hold padding alone).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        if min(self.padding) < 0:
            raise ValueError(f"padding: expected at least 0, got {self.padding!r}")
        for padding, kernel in zip(self.padding, self.kernel, strict=True):
            if 2 * padding > kernel:
                raise ValueError(
                    f"padding: expected at most half of the kernel {self.kernel!r}, "
                    f"got {self.padding!r}"
                )

    @classmethod
    def of(
        cls,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> Window:
        """Build from the arguments of ``torch.nn.MaxPool2d``; ``stride=None`` is the kernel."""
        return cls(
            pair(kernel_size, "kernel_size"),
            pair(kernel_size if stride is None else stride, "stride"),
            pair(padding, "padding"),
            pair(dilation, "dilation"),
            bool(ceil_mode),
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Pooled ``(height, width)`` of an input of the given height and width."""
        pooled = (
            pooled_size(size, k, s, p, d, self.ceil_mode)
            for size, k, s, p, d in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return next(pooled), next(pooled)

    def end_padding(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns to add at the bottom and right so that every window is whole."""
        needed = (
            max((pooled - 1) * s + d * (k - 1) + 1 - size - p, 0)
            for size, pooled, k, s, p, d in zip(
                (height, width),
                self.output_size(height, width),
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        return next(needed), next(needed)
