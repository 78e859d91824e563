"""The unit on every backend against the float64 reference, forward and backward, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool import PPool2d, _gpu, _library
from ppool.reference import (
    alpha_backward_reference,
    alpha_reference,
    ppool2d_backward_reference,
    ppool2d_reference,
)
from tests.native.gpu import kernels, needs_compiler
from tests.windows import TOLERANCE, Case, cases, scale_of

LOWEST = 2.0**-13  # the constants of a branch are held in float32
LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
needs_library = pytest.mark.skipif(
    _library.custom_ops_library() is None, reason="the native library is not built"
)
BACKENDS = [
    "formula",
    pytest.param("native", marks=needs_library),
    pytest.param("cuda", marks=needs_compiler),  # its kernels, run on the host
]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
Array = NDArray[np.float64]


@contextmanager
def using(backend: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if backend == "formula":
            patch.setattr(_library, "custom_ops_library", lambda: None)
        patch.setattr(_gpu, "cuda_kernels", kernels if backend == "cuda" else lambda: None)
        yield


def made(case: Case, dtype: torch.dtype, seed: int, **options: float) -> PPool2d:
    """A unit whose exponents vary over their range for inputs of the case's scale."""
    torch.manual_seed(seed)
    w = case.window
    pool = PPool2d(
        case.x.shape[1], w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode,
        signed=case.signed, input_scale=2.0, alpha_init=5.0, alpha_min=LOWEST, **options,
    )  # fmt: skip
    with torch.no_grad():
        pool.region.weight.normal_().div_(2 * scale_of(case))
        pool.activation.weight.uniform_(-0.5, 0.5)
        pool.point_weight.normal_().mul_(5)
        pool.point_bias.uniform_(0.5, 9)
    return pool.to(dtype)


def wide(tensor: torch.Tensor) -> Array:
    values: Array = tensor.detach().double().numpy()
    return values


def reference(pool: PPool2d, x: torch.Tensor, grad: torch.Tensor, case: Case) -> dict[str, Array]:
    """Result and gradients by the reference, from the tensors as stored."""
    inputs = [wide(x), *(wide(p.to(x.dtype)) for p in pool._parameters_of_branch())]
    constants = {"input_scale": 2.0, "alpha_min": LOWEST}
    alpha = alpha_reference(*inputs, *case.arguments, **constants)
    pooling = (*case.arguments,)
    dx, d_alpha = ppool2d_backward_reference(
        wide(grad), inputs[0], alpha, *pooling, signed=case.signed
    )
    d_alpha *= pool.alpha_gradient_scale
    through, *d_parameters = alpha_backward_reference(
        d_alpha, *inputs, *case.arguments, **constants
    )
    names = ("region.weight", "activation.weight", "point_weight", "point_bias")
    return {
        "y": ppool2d_reference(inputs[0], alpha, *pooling, signed=case.signed),
        "x": dx if pool.detach_branch else dx + through,
        **dict(zip(names, d_parameters, strict=True)),
    }


def found(pool: PPool2d, x: torch.Tensor, grad: torch.Tensor) -> dict[str, Array]:
    x = x.detach().requires_grad_()
    y = pool(x)
    parameters = dict(pool.named_parameters())
    gradients = torch.autograd.grad(y, [x, *parameters.values()], grad)
    for gradient, tensor in zip(gradients, [x, *parameters.values()], strict=True):
        assert gradient.shape == tensor.shape
        assert gradient.dtype == tensor.dtype
    return {"y": wide(y), **dict(zip(["x", *parameters], map(wide, gradients), strict=True))}


@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_backend
@settings(max_examples=12, deadline=None)
@given(case=cases(extreme=False), seed=st.integers(0, 1000))
def test_the_result_equals_the_reference(
    case: Case, seed: int, backend: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = torch.from_numpy(case.x).to(dtype).contiguous(memory_format=layout)
    pool = made(case, dtype, seed)
    with using(backend):
        y = pool(x)
    expected = reference(pool, x, torch.zeros_like(y), case)["y"]
    assert y.dtype == dtype
    error = np.abs(wide(y) - expected).max(initial=0)
    assert error <= TOLERANCE[str(dtype).removeprefix("torch.")] * scale_of(case)


@every_layout
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("backend", BACKENDS[:2])
@settings(max_examples=12, deadline=None)
@given(case=cases(extreme=False), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.25]))
def test_gradients_equal_the_reference_in_double(
    case: Case, seed: int, scale: float, backend: str, detach: bool, layout: torch.memory_format
) -> None:
    x = torch.from_numpy(case.x).contiguous(memory_format=layout)
    pool = made(case, torch.float64, seed, alpha_gradient_scale=scale, detach_branch=detach)
    grad = torch.linspace(-1, 1, pool(x).numel(), dtype=x.dtype).reshape(pool(x).shape)
    with using(backend):
        results = found(pool, x, grad)
    expected = reference(pool, x, grad, case)
    # Through the branch, whose weights were divided by the scale, errors are in proportion to it.
    for name, value in expected.items():
        tolerance = 1e-9 * max(scale_of(case), np.abs(value).max(initial=0), 1)
        assert np.abs(results[name] - value).max(initial=0) <= tolerance, name


@every_layout
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kernel", [2, 3])
@every_backend
def test_float32_gradients_equal_the_reference(
    backend: str, kernel: int, signed: bool, layout: torch.memory_format
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 19, 21, 18))
    x = x if signed else np.maximum(x, 0)
    window = PPool2d(1, kernel, 2, kernel // 2).window
    case = Case(x, np.empty(0), window, signed=signed)
    pool = made(case, torch.float32, 3)
    stored = torch.from_numpy(x).float().contiguous(memory_format=layout)
    grad = torch.linspace(-1, 1, pool(stored).numel()).reshape(pool(stored).shape)
    with using(backend):
        results = found(pool, stored, grad)
    for name, value in reference(pool, stored, grad, case).items():
        assert np.allclose(results[name], value, rtol=1e-4, atol=1e-4 * np.abs(value).max()), name


@needs_library
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_channels_last_memory_stays_so_and_threads_change_no_bit(
    dtype: torch.dtype, signed: bool
) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 21, 23, 18, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    pool = PPool2d(21, 3, 2, 1, input_scale=1.0, signed=signed).to(dtype)
    threads = torch.get_num_threads()
    seen = []
    for count in (1, 3):
        torch.set_num_threads(count)
        y = pool(x)
        seen.append([y, *torch.autograd.grad(y.sum(), [x, *pool.parameters()])])
    torch.set_num_threads(threads)
    assert seen[0][0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0][1].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


SPECIAL = [0.0, torch.nan, torch.inf]
WINDOWS: list[tuple[Any, ...]] = [(2, 2, 0), (3, 2, 1), (3, 1, 1), ((2, 3), 1, 0)]


@every_backend
@pytest.mark.parametrize("upstream", SPECIAL)
def test_nan_infinity_and_zero_meet_as_in_the_reference(backend: str, upstream: float) -> None:
    for element, window, layout in product(SPECIAL, WINDOWS, LAYOUTS):
        torch.manual_seed(0)
        pool = PPool2d(2, *window, alpha_min=0.0)
        x = torch.rand(1, 2, 5, 6).contiguous(memory_format=layout)
        x[0, 1, 2, 3] = element
        y = pool(x)
        arguments = Case(wide(x), np.empty(0), pool.window, signed=False).arguments
        grad = torch.ones_like(y)
        grad[0, 1, :2] = upstream  # also where a NaN is: 0 times NaN is NaN
        for exponent in (0.0, 1.0, 2.0):
            with torch.no_grad():
                pool.point_bias.fill_(exponent)
            with using(backend):
                results = found(pool, x, grad)
            parameters = map(wide, pool._parameters_of_branch())
            with np.errstate(invalid="ignore"):  # infinity times 0
                alpha = alpha_reference(wide(x), *parameters, *arguments, alpha_min=0.0)
                expected = ppool2d_reference(wide(x), alpha, *arguments)
                dx, _ = ppool2d_backward_reference(wide(grad), wide(x), alpha, *arguments)
            assert np.allclose(results["y"], expected, rtol=1e-5, equal_nan=True)
            assert np.allclose(results["x"], dx, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_mixed_types_give_gradients_of_the_parameters_type() -> None:
    for detach in (True, False):
        for backend in ("formula", "native"):
            x = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
            pool = PPool2d(3, 2, detach_branch=detach)
            with using(backend):
                y = pool(x)
                y.sum().backward()
            assert y.dtype == torch.bfloat16
            assert x.grad is not None
            assert x.grad.dtype == torch.bfloat16
            for parameter in pool.parameters():
                assert parameter.grad is not None
                assert parameter.grad.dtype == torch.float32


@every_backend
@pytest.mark.parametrize("detach", [True, False])
def test_large_half_precision_inputs_do_not_overflow_in_the_branch(
    detach: bool, backend: str
) -> None:
    x = torch.tensor([[[[700.0, 60000.0], [0.0, 30000.0]]]], dtype=torch.float16)
    pool = PPool2d(1, 2, alpha_init=20.0, alpha_max=35.0, detach_branch=detach).half()
    x.requires_grad_()
    with using(backend), torch.autocast("cpu", torch.bfloat16):
        y = pool(x)
        y.sum().backward()
    inputs = [wide(x), *map(wide, pool._parameters_of_branch())]
    expected = ppool2d_reference(inputs[0], alpha_reference(*inputs, 2), 2)
    assert wide(y) == pytest.approx(expected, rel=1e-3)
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert pool.alpha(x).isfinite().all()
