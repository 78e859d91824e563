"""The C entries against the reference: every row of the operator's table, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool.reference import ppool2d_backward_reference, ppool2d_reference
from ppool.window import Window
from tests.native.entries import (
    DTYPES,
    backward,
    forward,
    needs_library,
    same_bits,
    stored,
    wide,
)
from tests.windows import TOLERANCE, Case, cases, equal_but_one, scale_of

pytestmark = needs_library

PAIR = Window.of((1, 2))
SQUARE = Window.of(2)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
NAN, INF = float("nan"), float("inf")


def one_window(values: list[float], dtype: str) -> NDArray[np.generic]:
    return stored([[[values]]], dtype)


def gradients_of(
    values: list[float], alpha: float, dtype: str = "float32"
) -> tuple[list[float], float]:
    """dy/dx and dy/dalpha of one window, from the C entry."""
    x, exponent = one_window(values, dtype), one_window([alpha], dtype)
    window = Window.of((1, len(values)))
    dx, dalpha = backward(stored([[[[1.0]]]], dtype), x, exponent, window)
    return wide(dx).ravel().tolist(), float(dalpha.item())


@every_dtype
@settings(max_examples=80, deadline=None)
@given(case=cases(extreme=False))
def test_forward_equals_the_reference(case: Case, dtype: str) -> None:
    x, alpha = stored(case.x, dtype), stored(case.alpha, dtype)
    y = forward(x, alpha, case.window, signed=case.signed, threads=2)
    expected = ppool2d_reference(wide(x), wide(alpha), *case.arguments, signed=case.signed)
    error = np.abs(wide(y) - expected).max(initial=0)
    assert error <= TOLERANCE[dtype] * scale_of(case)


@every_dtype
@settings(max_examples=80, deadline=None)
@given(case=cases(extreme=False))
def test_backward_equals_the_reference(case: Case, dtype: str) -> None:
    x, alpha = stored(case.x, dtype), stored(case.alpha, dtype)
    grad = stored(np.linspace(-1, 1, alpha.size).reshape(alpha.shape), dtype)
    dx, dalpha = backward(grad, x, alpha, case.window, signed=case.signed, threads=2)
    expected_dx, expected_dalpha = ppool2d_backward_reference(
        wide(grad), wide(x), wide(alpha), *case.arguments, signed=case.signed
    )
    # One window's slopes reach 1 + alpha, and 1000^(1-alpha) where ratios are held at 1e-3.
    slopes = max(wide(alpha).max(initial=0) + 1, 1000.0 ** (1 - wide(alpha).min(initial=1)))
    assert np.abs(wide(dx) - expected_dx).max(initial=0) <= TOLERANCE[dtype] * slopes
    error = np.abs(wide(dalpha) - expected_dalpha).max(initial=0)
    assert error <= TOLERANCE[dtype] * scale_of(case)


magnitudes = st.one_of(
    st.just(0.0), st.floats(-44.5, 38.5).map(lambda power: float(np.float32(10.0**power)))
)
exponents = st.one_of(st.sampled_from([0.0, 1e-3, 0.01, 1.0, 35.0, 110.0]), st.floats(0, 110))


@settings(max_examples=400, deadline=None)
@given(values=st.lists(magnitudes, min_size=2, max_size=9), alpha=exponents)
def test_float32_is_within_1e_5_of_the_reference_for_any_mixture_of_scales(
    values: list[float], alpha: float
) -> None:
    x, exponent = one_window(values, "float32"), one_window([alpha], "float32")
    window = Window.of((1, len(values)))
    y = wide(forward(x, exponent, window)).item()
    expected = ppool2d_reference(wide(x), wide(exponent), window.kernel).item()
    # A denormal is a multiple of 2^-149, so half of that is the best it can be rounded to.
    assert abs(y - expected) <= 1e-5 * expected + 2.0**-150


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 35.0, 110.0])
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1.0, 1e30])
def test_gradients_of_x_do_not_depend_on_the_scale(scale: float, alpha: float) -> None:
    x = one_window([scale, 0.75 * scale, 0.3 * scale, 0.0], "float32")
    exponent, grad = one_window([alpha], "float32"), one_window([1.0], "float32")
    window = Window.of((1, 4))
    dx, dalpha = backward(grad, x, exponent, window)
    expected = ppool2d_backward_reference(wide(grad), wide(x), wide(exponent), window.kernel)
    assert np.allclose(dx, expected[0], rtol=0, atol=1e-5 * (1 + alpha))
    assert np.allclose(dalpha, expected[1], rtol=0, atol=1e-5 * scale + 2.0**-149)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_the_result_lies_between_the_smallest_and_the_largest_element(case: Case) -> None:
    x, alpha = stored(np.abs(case.x), "float32"), stored(case.alpha, "float32")
    y = forward(x, alpha, case.window)
    largest = forward(x, stored(np.full(alpha.shape, 1e30), "float32"), case.window)
    assert (y <= largest).all()
    mirrored = largest.max(initial=0) - forward(
        x.max(initial=0) - x, stored(np.full(alpha.shape, 1e30), "float32"), case.window
    )
    assert (wide(y) >= wide(mirrored) - 2e-6 * x.max(initial=0)).all()


@pytest.mark.parametrize("alpha", [1e-4, 1.0, 35.0, 1e6])
@pytest.mark.parametrize("taps", [2, 4, 9])
def test_equal_elements_give_exactly_that_element(
    taps: int, alpha: float, rng: np.random.Generator
) -> None:
    element = rng.random((1, 1, 256, 1), np.float32) + np.float32(1e-3)
    x = np.repeat(element, taps, axis=3)
    assert same_bits(forward(x, np.full_like(element, alpha), Window.of((1, taps))), element)


@settings(max_examples=80, deadline=None)
@given(case=cases(extreme=False), power=st.integers(-40, 40))
def test_scaling_by_a_power_of_two_scales_the_result_exactly(case: Case, power: int) -> None:
    x, alpha = stored(case.x, "float32"), stored(case.alpha, "float32")
    scaled = forward(np.ldexp(x, power), alpha, case.window, signed=case.signed)
    assert np.array_equal(
        scaled, np.ldexp(forward(x, alpha, case.window, signed=case.signed), power)
    )


@settings(max_examples=80, deadline=None)
@given(case=cases(extreme=False), step=st.floats(0, 50))
def test_the_result_never_falls_as_alpha_grows(case: Case, step: float) -> None:
    x = stored(np.abs(case.x), "float32")
    low = forward(x, stored(case.alpha, "float32"), case.window)
    high = forward(x, stored(case.alpha + step, "float32"), case.window)
    assert (wide(high) >= wide(low) - 1e-6 * scale_of(case)).all()


@settings(max_examples=80, deadline=None)
@given(case=cases(extreme=False))
def test_the_gradient_times_x_sums_to_the_result(case: Case) -> None:
    x = stored(np.abs(case.x) + 1e-3 * scale_of(case), "float32")
    alpha = stored(case.alpha, "float32")
    y = forward(x, alpha, case.window)
    dx, _ = backward(np.ones_like(alpha), x, alpha, case.window)
    total = wide(x * dx).sum()
    assert total == pytest.approx(wide(y).sum(), rel=1e-4, abs=1e-4 * scale_of(case))


@every_dtype
@pytest.mark.parametrize("alpha", [0.0, 35.0, 110.0])
def test_a_window_of_zeros_gives_zero_and_shares_its_gradient(alpha: float, dtype: str) -> None:
    assert forward(one_window([0.0] * 4, dtype), one_window([alpha], dtype), Window.of((1, 4))) == 0
    assert gradients_of([0.0] * 4, alpha, dtype) == ([0.25] * 4, 0.0)


@every_dtype
def test_alpha_zero_is_the_average_of_what_is_inside_the_image(dtype: str) -> None:
    window = Window.of(3, 2, 1)
    x = stored(np.arange(1, 26).reshape(1, 1, 5, 5), dtype)
    y = forward(x, stored(np.zeros((1, 1, 3, 3)), dtype), window)
    corner, middle = np.mean([1, 2, 6, 7]), np.mean(np.arange(1, 26).reshape(5, 5)[1:4, 1:4])
    assert wide(y)[0, 0, 0, 0] == pytest.approx(corner, rel=TOLERANCE[dtype])
    assert wide(y)[0, 0, 1, 1] == pytest.approx(middle, rel=TOLERANCE[dtype])
    dx, _ = backward(stored(np.ones((1, 1, 3, 3)), dtype), x, np.zeros_like(y), window)
    assert wide(dx)[0, 0, 0, 0] == pytest.approx(1 / 4, rel=TOLERANCE[dtype])


@every_dtype
@pytest.mark.parametrize("alpha", [1e4, 3e4, INF])
def test_a_huge_alpha_is_max_pooling_and_ties_share_the_gradient(alpha: float, dtype: str) -> None:
    x = one_window([2.0, 1.0, 2.0, 0.0], dtype)
    assert forward(x, one_window([alpha], dtype), Window.of((1, 4))) == 2
    dx, dalpha = gradients_of([2.0, 1.0, 2.0, 0.0], alpha, dtype)
    assert dx == [0.5, 0.0, 0.5, 0.0]
    assert dalpha == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_zero_beside_others_has_the_gradient_of_the_table(alpha: float, dtype: str) -> None:
    dx, _ = gradients_of([0.0, 0.5, 1.0], alpha, dtype)
    by_alpha = {0.0: 1 / 3, 1.0: -(0.25 + 1) / 1.5 / 1.5}
    assert dx[0] == pytest.approx(by_alpha.get(alpha, 0.0), rel=1e-6)


@every_dtype
@pytest.mark.parametrize(
    ("values", "alpha"),
    [
        ([NAN, 1.0], 2.0),
        ([1.0, NAN], 0.0),
        ([NAN, INF], 2.0),
        ([INF, NAN], 2.0),
        ([NAN, 0.0], 35.0),
        ([1.0, 2.0], NAN),
        ([0.0, 0.0], NAN),
        ([INF, 1.0], NAN),
    ],
)
def test_nan_in_gives_nan_out(values: list[float], alpha: float, dtype: str) -> None:
    assert np.isnan(wide(forward(one_window(values, dtype), one_window([alpha], dtype), PAIR)))
    dx, dalpha = gradients_of(values, alpha, dtype)
    assert np.isnan([*dx, dalpha]).all()


@every_dtype
@pytest.mark.parametrize("alpha", [0.0, 2.0, 110.0])
def test_infinity_in_gives_infinity_out_and_takes_the_gradient(alpha: float, dtype: str) -> None:
    x = one_window([INF, 1.0, INF], dtype)
    assert forward(x, one_window([alpha], dtype), Window.of((1, 3))) == INF
    assert gradients_of([INF, 1.0, INF], alpha, dtype) == ([0.5, 0.0, 0.5], 0.0)


@every_dtype
def test_a_nan_spoils_only_the_windows_that_hold_it_even_when_signed(dtype: str) -> None:
    x = np.array([[[[NAN, -1.0, 2.0, -2.0]]]])
    y = forward(stored(x, dtype), stored([[[[1.0, 1.0]]]], dtype), PAIR, signed=True)
    assert np.isnan(wide(y)[0, 0, 0, 0])
    assert wide(y)[0, 0, 0, 1] == 2  # shifted by -2 the window is (4, 0)


@every_dtype
def test_a_negative_input_counts_as_zero_and_gets_no_gradient(dtype: str) -> None:
    x, alpha = one_window([-3.0, 1.0], dtype), one_window([0.0], dtype)
    assert forward(x, alpha, PAIR) == 0.5
    assert gradients_of([-3.0, 1.0], 0.0, dtype)[0] == [0.0, 0.5]


@every_dtype
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_empty_tensors_are_left_alone(shape: tuple[int, ...], dtype: str) -> None:
    x, alpha = stored(np.zeros(shape), dtype), stored(np.zeros((*shape[:2], 2, 2)), dtype)
    assert forward(x, alpha, SQUARE).shape == alpha.shape
    assert backward(alpha, x, alpha, SQUARE)[0].shape == shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_value_passes_through_a_window_of_one(dtype: str) -> None:
    x = np.arange(2**15, dtype=np.uint16).view(DTYPES[dtype]).reshape(1, 1, 1, -1)
    y = forward(x, np.ones_like(x), Window.of(1))
    assert np.array_equal(wide(y), wide(x), equal_nan=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_results_are_rounded_once_to_the_nearest_even(
    dtype: str, rng: np.random.Generator
) -> None:
    # At alpha 0 the middle of three elements receives half of each of the two gradients.
    patterns = rng.integers(0, 2**16, (4096, 1, 1, 1), dtype=np.uint16)
    steps = rng.integers(0, 2**8, (4096, 1, 1, 1), dtype=np.uint16)
    grad = np.concatenate([patterns, patterns ^ steps], axis=3).view(DTYPES[dtype])
    grad = grad[np.isfinite(wide(grad)).all(axis=(1, 2, 3))]
    x = stored(np.ones((len(grad), 1, 1, 3)), dtype)
    dx, _ = backward(grad, x, np.zeros_like(grad), Window.of((1, 2), 1))
    middle = stored(wide(grad).mean(axis=3), dtype)
    assert np.array_equal(wide(dx)[..., 1], wide(middle))


WINDOWS = [Window.of(2), Window.of(3, 2, 1), Window.of(3, 1, 1, 2), Window.of(2, 2, 0, 1, True)]


@every_dtype
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_threads_batch_position_and_alignment_never_change_a_bit(
    window: Window, signed: bool, dtype: str, rng: np.random.Generator
) -> None:
    shape = (3, 5, 37, 151)
    pooled = (*shape[:2], *window.output_size(*shape[2:]))
    x = stored(rng.normal(size=shape), dtype)
    alpha, grad = stored(rng.uniform(0, 30, pooled), dtype), stored(rng.normal(size=pooled), dtype)
    y = forward(x, alpha, window, signed=signed)
    dx, dalpha = backward(grad, x, alpha, window, signed=signed)
    for threads in (2, 3, 16):
        assert same_bits(forward(x, alpha, window, signed=signed, threads=threads), y)
        again = backward(grad, x, alpha, window, signed=signed, threads=threads)
        assert same_bits(again[0], dx)
        assert same_bits(again[1], dalpha)
    for image in range(len(x)):
        one = slice(image, image + 1)
        buffer = np.empty(x[one].size + 1, x.dtype)
        moved = buffer[1:].reshape(x[one].shape)
        moved[:] = x[one]
        assert same_bits(forward(moved, alpha[one], window, signed=signed), y[one])
        alone = backward(grad[one], moved, alpha[one], window, signed=signed)
        assert same_bits(alone[0], dx[one])
        assert same_bits(alone[1], dalpha[one])


@pytest.mark.parametrize("side", [16, 64])
def test_many_equal_elements_below_a_larger_one_do_not_add_up_errors(
    rng: np.random.Generator, side: int
) -> None:
    x, alpha = equal_but_one(rng, side)
    y = wide(forward(x, alpha, Window.of(side)))
    expected = ppool2d_reference(wide(x), wide(alpha), (side, side))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
