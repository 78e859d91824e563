"""The judge itself, against literal formulas and the paper's propositions."""

import numpy as np
import pytest
from hypothesis import given

from ppool.reference import (
    alpha_reference,
    ppool2d_backward_reference,
    ppool2d_reference,
    resize_argmax_reference,
)
from tests.windows import Case, cases


def test_equation_1_by_hand() -> None:
    x = [[[[1.0, 2.0], [3.0, 4.0]]]]
    expected = (1 + 8 + 27 + 64) / (1 + 4 + 9 + 16)
    assert ppool2d_reference(x, [[[[2.0]]]], 2).item() == pytest.approx(expected)


def test_a_stray_zero_counts_only_at_alpha_zero() -> None:
    x = [[[[1.0, 0.0], [0.0, 0.0]]]]
    assert ppool2d_reference(x, [[[[0.0]]]], 2).item() == 0.25
    assert ppool2d_reference(x, [[[[1e-6]]]], 2).item() == 1.0


def test_all_zero_window_pools_to_zero_and_spreads_its_gradient() -> None:
    x, alpha = np.zeros((1, 1, 2, 2)), np.full((1, 1, 1, 1), 3.0)
    assert ppool2d_reference(x, alpha, 2).item() == 0
    dx, dalpha = ppool2d_backward_reference(np.ones((1, 1, 1, 1)), x, alpha, 2)
    assert np.array_equal(dx, np.full((1, 1, 2, 2), 0.25))
    assert dalpha.item() == 0


def test_nan_and_infinity_reach_only_their_windows() -> None:
    x = np.ones((1, 1, 2, 6))
    x[..., 0, 0], x[..., 1, 2] = np.nan, np.inf
    y = ppool2d_reference(x, np.full((1, 1, 1, 3), 2.0), 2)
    assert np.isnan(y[..., 0]).all()
    assert np.isposinf(y[..., 1]).all()
    assert (y[..., 2] == 1).all()


def test_padding_is_never_counted() -> None:
    x, alpha = np.full((1, 1, 3, 3), 5.0), np.zeros((1, 1, 3, 3))
    assert np.array_equal(ppool2d_reference(x, alpha, 3, 1, 1), x)


@pytest.mark.parametrize("alpha", [1.0, 2.5, 20.0])
def test_gradients_equal_finite_differences(alpha: float, rng: np.random.Generator) -> None:
    x = rng.uniform(0.5, 2.0, (1, 1, 3, 3))
    a = np.full((1, 1, 1, 1), alpha)
    dx, dalpha = ppool2d_backward_reference(np.ones((1, 1, 1, 1)), x, a, 3)
    step = 1e-6
    for i in np.ndindex(3, 3):
        up, down = x.copy(), x.copy()
        up[(0, 0, *i)] += step
        down[(0, 0, *i)] -= step
        slope = (ppool2d_reference(up, a, 3) - ppool2d_reference(down, a, 3)).item() / (2 * step)
        assert dx[(0, 0, *i)] == pytest.approx(slope, abs=1e-7)
    slope = (ppool2d_reference(x, a + step, 3) - ppool2d_reference(x, a - step, 3)) / (2 * step)
    assert dalpha.item() == pytest.approx(slope.item(), abs=1e-7)


@given(cases())
def test_signed_pooling_moves_with_a_constant_added(case: Case) -> None:
    if not case.signed:
        return
    y = ppool2d_reference(case.x, case.alpha, *case.arguments, signed=True)
    lower = case.x - np.abs(case.x).max(initial=0)
    moved = ppool2d_reference(lower, case.alpha, *case.arguments, signed=True)
    scale = np.abs(case.x).max(initial=0) or 1.0
    expected = y - np.abs(case.x).max(initial=0)
    has_negative = (
        (case.x < 0).any(axis=(2, 3)) if case.x.size else np.zeros(case.x.shape[:2], bool)
    )
    assert np.allclose(moved[has_negative], expected[has_negative], atol=1e-9 * scale, rtol=0)


def test_alpha_of_a_silent_branch_is_its_bias() -> None:
    alpha = alpha_reference(
        np.ones((1, 2, 4, 4)), np.ones((2, 1, 2, 2)), [0.25, 0.25], [0.0, 0.0], [20.0, 50.0], 2
    )
    assert (alpha[:, 0] == 20).all()
    assert (alpha[:, 1] == 35).all()


def test_resize_argmax_takes_the_first_class_on_a_tie() -> None:
    assert (resize_argmax_reference(np.zeros((1, 3, 2, 2)), (5, 4)) == 0).all()


def test_resize_argmax_at_the_same_size_is_argmax(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(2, 5, 7, 6))
    assert np.array_equal(resize_argmax_reference(logits, (7, 6)), logits.argmax(1))
