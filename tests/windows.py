"""Hypothesis strategies and tolerances shared by the tests of every backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from ppool.reference import resize_argmax_reference
from ppool.window import Window

# Relative to the window's maximum; storage rounds once, arithmetic is float32 or better.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}


@dataclass(frozen=True)
class Case:
    """One pooling problem: input, exponents and window, in float64."""

    x: NDArray[np.float64]
    alpha: NDArray[np.float64]
    window: Window
    signed: bool

    @property
    def arguments(self) -> tuple[object, ...]:
        """The positional arguments of ``ppool2d`` after ``alpha``."""
        w = self.window
        return w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode


def small_pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def cases(draw: st.DrawFn, *, extreme: bool = True) -> Case:
    """Odd sizes, strides, paddings, dilations, ceil_mode, zeros, ties and many scales."""
    kernel = draw(small_pair(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    window = Window(
        kernel, draw(small_pair(1, 3)), padding, draw(small_pair(1, 2)), draw(st.booleans())
    )
    height, width = draw(small_pair(1, 9))
    n, c = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    try:
        pooled = window.output_size(height, width)
    except ValueError:
        assume(False)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e3] + [1e-30, 1e30] * extreme))
    signed = draw(st.booleans())
    x = rng.random((n, c, height, width)) * scale
    x = np.where(rng.random(x.shape) < draw(st.sampled_from([0.0, 0.4, 1.0])), 0.0, x)
    if draw(st.booleans()):
        x = np.round(x / scale * 3) / 3 * scale  # ties
    if signed:
        x = x - scale * rng.random((n, c, 1, 1))
    alpha = rng.uniform(0, draw(st.sampled_from([1.0, 35.0, 110.0])), (n, c, *pooled))
    special = draw(st.sampled_from([0.0, 1.0, 2.0, 35.0]))
    alpha = np.where(rng.random(alpha.shape) < 0.3, special, alpha)
    return Case(x, alpha, window, signed)


def scale_of(case: Case) -> float:
    """What errors are measured against: the largest magnitude in the input."""
    return float(np.abs(case.x).max(initial=0.0)) or 1.0


def equal_but_one(
    rng: np.random.Generator, side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """64 windows of ``side`` squared: a 1 among equal smaller elements; and their exponents.

    Every addition of equal terms rounds the same way, so errors add up.
    """
    shape = (1, 64, side, side)
    x = np.broadcast_to(rng.uniform(0.5, 1.0, (1, 64, 1, 1)), shape).astype(np.float32)
    x[:, :, 0, 0] = 1
    return x, rng.uniform(0, 8, (1, 64, 1, 1)).astype(np.float32)


def assert_largest(
    labels: NDArray[Any],
    logits: ArrayLike,
    size: Sequence[int],
    between: Sequence[int] | None = None,
) -> None:
    """Labels are those of :func:`resize_argmax_reference`, or of logits as large.

    Where another class is chosen, giving it a little more must make the reference choose it too.
    """
    logits = np.asarray(logits, np.float64)
    for n, row, column in np.argwhere(labels != resize_argmax_reference(logits, size, between)):
        nudged = logits[n : n + 1].copy()
        nudged[:, labels[n, row, column]] += 1e-5
        again = resize_argmax_reference(nudged, size, between)
        assert again[0, row, column] == labels[n, row, column]
