"""The CUDA kernels, indexing and arithmetic, run on the host against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool._jobs import Branch, ForwardJob, Pooling, ResizeArgMaxJob
from ppool.reference import (
    alpha_backward_reference,
    alpha_reference,
    ppool2d_backward_reference,
    ppool2d_reference,
    resize_argmax_reference,
)
from ppool.window import Window
from tests.native.entries import DTYPES, same_bits, stored, wide
from tests.native.gpu import (
    backward,
    forward,
    kernels,
    misaligned,
    needs_compiler,
    resize_argmax,
    unit,
    unit_backward,
)
from tests.windows import TOLERANCE, Case, assert_largest, cases, equal_but_one, scale_of

pytestmark = needs_compiler

NAN, INF = float("nan"), float("inf")
GPU_DTYPES = ["float32", "float16", "bfloat16"]
every_dtype = pytest.mark.parametrize("dtype", GPU_DTYPES)

# Those with kernels of their own, with ceil_mode, and one for any window.
WINDOWS = [
    Window.of(2),
    Window.of(2, ceil_mode=True),
    Window.of(3, 2, 1),
    Window.of(3, 2, 1, ceil_mode=True),
    Window.of(3, 1, 1),
    Window.of((3, 2), 2, 1, 2),
]
every_window = pytest.mark.parametrize("window", WINDOWS, ids=str)
# Widths with and without 16-byte rows; heights around a tile of 16 rows and a half-filled window.
SIZES = [(1, 2), (3, 3), (5, 16), (16, 32), (17, 33), (33, 40), (34, 7), (15, 64)]


def arguments(window: Window) -> tuple[object, ...]:
    """The reference's positional arguments after ``alpha``."""
    return window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode


def problem(
    shape: tuple[int, ...], window: Window, dtype: str, *, signed: bool = False
) -> Case | None:
    """Zeros, ties, tiny elements and exponents of every kind; None where no window fits."""
    try:
        pooled = window.output_size(*shape[2:])
    except ValueError:
        return None
    rng = np.random.default_rng(shape[2] * 100 + shape[3])
    x = rng.random(shape) * 10.0 ** rng.integers(-3, 1, shape)
    x = np.where(rng.random(shape) < 0.3, 0.0, np.round(x, 1 + (shape[3] % 2) * 3))
    x = x - 0.3 * rng.random((*shape[:2], 1, 1)) if signed else x
    choice = rng.integers(0, 4, (*shape[:2], *pooled))
    alpha = np.choose(choice, [0.0, 1.0, 35.0, 0.0]) + (choice == 3) * rng.uniform(
        0, 110, choice.shape
    )
    return Case(wide(stored(x, dtype)), wide(stored(alpha, dtype)), window, signed)


def assert_forward(case: Case, dtype: str) -> None:
    x, alpha = stored(case.x, dtype), stored(case.alpha, dtype)
    expected = ppool2d_reference(wide(x), wide(alpha), *case.arguments, signed=case.signed)
    y = wide(forward(x, alpha, case.window, signed=case.signed))
    assert np.abs(y - expected).max(initial=0) <= TOLERANCE[dtype] * scale_of(case)


def assert_backward(case: Case, dtype: str) -> None:
    x, alpha = stored(case.x, dtype), stored(case.alpha, dtype)
    grad = stored(np.linspace(-1, 1, alpha.size).reshape(alpha.shape), dtype)
    dx, dalpha = backward(grad, x, alpha, case.window, signed=case.signed)
    expected_dx, expected_dalpha = ppool2d_backward_reference(
        wide(grad), wide(x), wide(alpha), *case.arguments, signed=case.signed
    )
    # One window's slopes reach 1 + alpha, and 1000^(1-alpha) where ratios are held at 1e-3.
    slopes = max(wide(alpha).max(initial=0) + 1, 1000.0 ** (1 - wide(alpha).min(initial=1)))
    assert np.abs(wide(dx) - expected_dx).max(initial=0) <= TOLERANCE[dtype] * slopes
    error = np.abs(wide(dalpha) - expected_dalpha).max(initial=0)
    assert error <= TOLERANCE[dtype] * scale_of(case)


@every_dtype
@settings(max_examples=25, deadline=None)
@given(case=cases(extreme=False))
def test_any_window_equals_the_reference_forward_and_backward(case: Case, dtype: str) -> None:
    assert_forward(case, dtype)
    assert_backward(case, dtype)


@every_dtype
@every_window
@pytest.mark.parametrize("signed", [False, True])
def test_every_size_and_edge_equals_the_reference(window: Window, signed: bool, dtype: str) -> None:
    tried = 0
    for height, width in SIZES:
        case = problem((1, 2, height, width), window, dtype, signed=signed)
        if case is not None:
            assert_forward(case, dtype)
            assert_backward(case, dtype)
            tried += 1
    assert tried >= 6


magnitudes = st.one_of(
    st.just(0.0), st.floats(-44.5, 38.5).map(lambda power: float(np.float32(10.0**power)))
)
exponents = st.one_of(st.sampled_from([0.0, 1e-3, 0.01, 1.0, 35.0, 110.0]), st.floats(0, 110))


@pytest.mark.parametrize("window", [Window.of(2), Window.of(3, 2, 1), Window.of((1, 4))], ids=str)
@settings(max_examples=150, deadline=None)
@given(values=st.lists(magnitudes, min_size=4, max_size=4), alpha=exponents)
def test_float32_is_within_1e_5_of_the_reference_for_any_mixture_of_scales(
    values: list[float], alpha: float, window: Window
) -> None:
    shape = (1, 1, 1, 4) if window.kernel == (1, 4) else (1, 1, 2, 2)
    x, exponent = stored(np.reshape(values, shape), "float32"), stored([[[[alpha]]]], "float32")
    y = wide(forward(x, exponent, window)).item()
    expected = ppool2d_reference(wide(x), wide(exponent), *arguments(window)).item()
    assert abs(y - expected) <= 1e-5 * expected + 2.0**-149
    assert y <= max(values)


@every_window
@pytest.mark.parametrize("element", [NAN, INF])
def test_nan_and_infinity_spread_as_the_reference_says(element: float, window: Window) -> None:
    rng = np.random.default_rng(0)
    x = stored(rng.random((1, 2, 19, 35)), "float32")
    x[0, 0, [0, 7, 18], [0, 20, 34]] = element
    pooled = (1, 2, *window.output_size(19, 35))
    alpha = stored(rng.choice([0.0, 0.5, 1.0, 20.0], pooled), "float32")
    grad = np.ones_like(alpha)
    expected_y = ppool2d_reference(x, alpha, *arguments(window))
    assert np.allclose(forward(x, alpha, window), expected_y, rtol=1e-5, equal_nan=True)
    expected = ppool2d_backward_reference(grad, x, alpha, *arguments(window))
    for found, truth in zip(backward(grad, x, alpha, window), expected, strict=True):
        assert np.allclose(found, truth, rtol=1e-4, atol=1e-3, equal_nan=True)


@every_window
def test_nan_exponents_give_nan(window: Window) -> None:
    x = stored(np.ones((1, 1, 8, 8)), "float32")
    alpha = stored(np.full((1, 1, *window.output_size(8, 8)), NAN), "float32")
    assert np.isnan(forward(x, alpha, window)).all()
    assert all(np.isnan(part).any() for part in backward(np.ones_like(alpha), x, alpha, window))


def branch_parameters(
    channels: int, window: Window, dtype: str, rng: np.random.Generator
) -> list[NDArray[np.generic]]:
    """A side branch whose exponents vary over most of their range."""
    values = (
        rng.normal(size=(channels, 1, *window.kernel)) / 100,
        rng.uniform(-0.5, 0.5, channels),
        rng.normal(size=channels) * 5,
        rng.uniform(-5, 40, channels),
    )
    return [stored(value, dtype) for value in values]


@every_dtype
@every_window
@pytest.mark.parametrize("signed", [False, True])
def test_the_unit_equals_the_reference(
    window: Window, signed: bool, dtype: str, rng: np.random.Generator
) -> None:
    branch = Branch(input_scale=100.0, alpha_min=0.25, alpha_max=35.0)
    for height, width in ((9, 11), (16, 32), (17, 64)):
        x = stored(rng.random((2, 3, height, width)) - 0.3 * signed, dtype)
        parameters = branch_parameters(3, window, dtype, rng)
        y = unit(x, parameters, window, branch, signed=signed)
        expected_alpha = alpha_reference(
            wide(x), *map(wide, parameters), *arguments(window), alpha_min=0.25
        )
        expected = ppool2d_reference(wide(x), expected_alpha, *arguments(window), signed=signed)
        assert np.abs(wide(y) - expected).max() <= TOLERANCE[dtype]


@every_dtype
@pytest.mark.parametrize("window", [*WINDOWS, Window.of(5, 3, 2)], ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_the_units_gradients_equal_the_reference(
    window: Window, signed: bool, dtype: str, rng: np.random.Generator
) -> None:
    branch = Branch(input_scale=100.0, alpha_min=0.25, alpha_max=35.0)
    rest = arguments(window)
    for height, width in ((9, 11), (17, 32)):
        x = stored(rng.random((2, 2, height, width)) - 0.3 * signed, dtype)
        x[rng.random(x.shape) < 0.2] = 0
        parameters = branch_parameters(2, window, dtype, rng)
        of = (wide(x), *map(wide, parameters))
        alpha = alpha_reference(*of, *rest, alpha_min=0.25)
        grad = stored(rng.uniform(-1, 1, alpha.shape), dtype)
        expected_dx, d_alpha = ppool2d_backward_reference(
            wide(grad), wide(x), alpha, *rest, signed=signed
        )
        _, *expected = alpha_backward_reference(2 * d_alpha, *of, *rest, alpha_min=0.25)

        dx, parts = unit_backward(
            grad, x, parameters, window, branch, signed=signed, alpha_gradient_scale=2.0
        )
        assert np.abs(wide(dx) - expected_dx).max() <= TOLERANCE[dtype] * 36
        found = np.split(parts.sum(0), np.cumsum([parts.shape[-1] - 3, 1, 1]), axis=1)
        for gradient, truth in zip(found, expected, strict=True):
            # A sum of float32 terms of both signs, whatever x is stored as.
            error = np.abs(gradient.reshape(truth.shape) - truth).max()
            assert error <= 1e-3 * np.abs(truth).max()


@every_window
def test_the_units_gradients_of_misaligned_tensors_have_the_same_bits(
    window: Window, rng: np.random.Generator
) -> None:
    branch = Branch(input_scale=100.0, alpha_min=0.25, alpha_max=35.0)
    x = stored(rng.random((1, 2, 24, 64)), "float16")
    parameters = branch_parameters(2, window, "float16", rng)
    grad = stored(rng.uniform(-1, 1, (1, 2, *window.output_size(24, 64))), "float16")
    expected = unit_backward(grad, x, parameters, window, branch)
    moved = [misaligned(parameter) for parameter in parameters]
    found = unit_backward(misaligned(grad), misaligned(x), moved, window, branch)
    for one, other in zip(found, expected, strict=True):
        assert same_bits(one, other)


@every_dtype
@every_window
def test_misaligned_tensors_give_the_same_bits(window: Window, dtype: str) -> None:
    case = problem((2, 3, 24, 64), window, dtype)
    assert case is not None
    x, alpha = stored(case.x, dtype), stored(case.alpha, dtype)
    grad = stored(np.linspace(-1, 1, alpha.size).reshape(alpha.shape), dtype)
    moved = [misaligned(tensor) for tensor in (grad, x, alpha)]
    assert same_bits(forward(*moved[1:], window), forward(x, alpha, window))
    for one, other in zip(backward(*moved, window), backward(grad, x, alpha, window), strict=True):
        assert same_bits(one, other)


@every_window
def test_an_image_is_the_same_alone_and_in_a_batch(window: Window) -> None:
    case = problem((3, 5, 37, 151), window, "float16")
    assert case is not None
    x, alpha = stored(case.x, "float16"), stored(case.alpha, "float16")
    together = forward(x, alpha, window)
    for image in range(3):
        one = slice(image, image + 1)
        assert same_bits(forward(x[one].copy(), alpha[one].copy(), window), together[one])


@every_dtype
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_empty_tensors_are_left_alone(shape: tuple[int, ...], dtype: str) -> None:
    x, alpha = stored(np.zeros(shape), dtype), stored(np.zeros((*shape[:2], 2, 2)), dtype)
    assert forward(x, alpha, Window.of(2)).shape == alpha.shape
    assert backward(alpha, x, alpha, Window.of(2))[0].shape == shape


@every_dtype
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 2**32 - 1),
)
def test_resize_argmax_finds_a_largest_logit(
    shape: tuple[int, ...], size: tuple[int, int], seed: int, dtype: str
) -> None:
    logits = stored(np.random.default_rng(seed).normal(size=shape), dtype)
    labels = resize_argmax(logits, size)
    assert (labels < shape[1]).all()
    assert_largest(labels, wide(logits), size)


@pytest.mark.parametrize("size", [(8, 12), (31, 17), (5, 40)])
def test_logits_of_blocks_are_labelled_as_those_of_pixels(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 5, 8, 12)).astype(np.float32)
    cells = pixels.reshape(2, 5, 4, 2, 6, 2).transpose(0, 1, 3, 5, 2, 4).copy()
    assert np.array_equal(resize_argmax(cells, size), resize_argmax(pixels, size))


def test_resize_argmax_gives_a_tie_to_the_first_class() -> None:
    logits = np.zeros((1, 256, 3, 3), np.float32)
    logits[:, 100:] = 2.5
    assert (resize_argmax(logits, (7, 300)) == 100).all()


def test_more_than_256_classes_are_labelled_in_16_bits() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 300, 3, 4)).astype(np.float32)
    labels = resize_argmax(logits, (7, 9))
    assert labels.dtype == np.uint16
    assert (labels == resize_argmax_reference(logits, (7, 9))).mean() > 0.99


def test_what_does_not_fit_is_an_error_and_no_crash() -> None:
    with pytest.raises(RuntimeError, match="invalid argument"):
        kernels().run(ForwardJob(Pooling((1, 1, 2, 2), Window.of(3), False, "float32"), 0, 0, 0))
    with pytest.raises(ValueError, match=r"dtype: expected one of .* got 'float64'"):
        kernels().run(ForwardJob(Pooling((1, 1, 2, 2), Window.of(2), False, "float64"), 0, 0, 0))
    with pytest.raises(RuntimeError, match="invalid argument"):
        kernels().run(ResizeArgMaxJob(1, 65537, 2, 2, 4, 4, "float32", 1, 0, 0))
    last = Pooling((1, 1, 2, 2), Window.of(2), False, "float32", channels_last=True)
    with pytest.raises(RuntimeError, match="invalid argument"):
        kernels().run(ForwardJob(last, 0, 0, 0))


def test_every_element_type_of_the_gpu_is_one_of_the_library() -> None:
    assert set(GPU_DTYPES) < set(DTYPES)


@pytest.mark.parametrize("side", [16, 64])
def test_many_equal_elements_below_a_larger_one_do_not_add_up_errors(
    rng: np.random.Generator, side: int
) -> None:
    x, alpha = equal_but_one(rng, side)
    y = wide(forward(x, alpha, Window.of(side)))
    expected = ppool2d_reference(wide(x), wide(alpha), (side, side))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
