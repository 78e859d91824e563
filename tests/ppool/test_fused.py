"""The unit as one native autograd function against the separate operators it replaces."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppool import PPool2d, _fused, _library
from ppool.reference import alpha_reference, ppool2d_reference
from tests.windows import TOLERANCE, Case, cases, scale_of

pytestmark = pytest.mark.skipif(
    _library.custom_ops_library() is None, reason="the native library is not built"
)

LAYOUTS = [torch.contiguous_format, torch.channels_last]
LOWEST = 2.0**-13  # the constants of a branch are held in float32
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def made(case: Case, channels: int, dtype: torch.dtype, seed: int, **options: float) -> PPool2d:
    """A unit whose exponents vary over their range for inputs of the case's scale."""
    torch.manual_seed(seed)
    w = case.window
    pool = PPool2d(
        channels, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode,
        signed=case.signed, input_scale=1.0, alpha_init=5.0, alpha_min=LOWEST, **options,
    )  # fmt: skip
    with torch.no_grad():
        pool.region.weight.normal_().div_(scale_of(case))
        pool.activation.weight.uniform_(-0.5, 0.5)
        pool.point_weight.normal_().mul_(5)
        pool.point_bias.uniform_(0.5, 9)
    return pool.to(dtype)


def gradients(
    pool: PPool2d, x: torch.Tensor, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> list[torch.Tensor]:
    """Result and gradients of a pool, fused or by separate operators."""
    x = x.detach().requires_grad_()
    with monkeypatch.context() as patch:
        if not fused:
            patch.setattr(_fused, "runs", lambda _: False)
        y = pool(x)
    grad = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *pool.parameters()], grad)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=20, deadline=None)
@given(case=cases(extreme=False), seed=st.integers(0, 1000))
def test_the_result_equals_the_reference(
    case: Case, seed: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = torch.from_numpy(case.x).to(dtype).contiguous(memory_format=layout)
    pool = made(case, x.shape[1], dtype, seed)
    y = pool(x)
    parameters = [p.detach().double().numpy() for p in pool._parameters_of_branch()]
    inputs = x.double().numpy()
    alpha = alpha_reference(inputs, *parameters, *case.arguments, input_scale=1.0, alpha_min=LOWEST)
    expected = ppool2d_reference(inputs, alpha, *case.arguments, signed=case.signed)
    assert y.dtype == dtype
    error = np.abs(y.detach().double().numpy() - expected).max(initial=0)
    assert error <= TOLERANCE[str(dtype).removeprefix("torch.")] * scale_of(case)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@settings(max_examples=30, deadline=None)
@given(case=cases(extreme=False), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.25]))
def test_gradients_equal_those_of_the_separate_operators_in_double(
    case: Case, seed: int, scale: float, layout: torch.memory_format
) -> None:
    x = torch.from_numpy(case.x).contiguous(memory_format=layout)
    pool = made(case, x.shape[1], torch.float64, seed, alpha_gradient_scale=scale)
    with pytest.MonkeyPatch.context() as patch:
        found = gradients(pool, x, True, patch)
        expected = gradients(pool, x, False, patch)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8 * max(scale_of(case), 1))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kernel", [2, 3])
def test_float32_gradients_are_close_to_those_in_double(
    kernel: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 19, 37, 41).relu().contiguous(memory_format=layout)
    pool = PPool2d(19, kernel, 2, kernel // 2, input_scale=1.0, alpha_init=2.0)
    with torch.no_grad():
        pool.point_weight.normal_()
    found = gradients(pool, x, True, monkeypatch)
    expected = gradients(pool.double(), x.double(), False, monkeypatch)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_channels_last_memory_stays_so_and_threads_change_no_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 21, 23, 18, dtype=dtype).contiguous(memory_format=torch.channels_last)
    pool = PPool2d(21, 3, 2, 1, input_scale=1.0).to(dtype)
    threads = torch.get_num_threads()
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for count in (1, 3):
            torch.set_num_threads(count)
            seen.append(gradients(pool, x, True, patch))
        torch.set_num_threads(threads)
    assert seen[0][0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0][1].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_infinity_and_nan_spoil_only_their_own_windows_in_channels_last() -> None:
    x = torch.rand(1, 5, 4, 4).contiguous(memory_format=torch.channels_last)
    x[0, 1, 0, 0], x[0, 2, 3, 3] = torch.nan, torch.inf
    pool = PPool2d(5, 2)
    with torch.no_grad():
        pool.region.weight.fill_(1)
        pool.point_weight.fill_(1)  # infinity times 0 would be NaN
    y = pool(x)
    assert y.isnan().nonzero().tolist() == [[0, 1, 0, 0]]
    assert y.isinf().nonzero().tolist() == [[0, 2, 1, 1]]


def test_autocast_and_mixed_parameter_types_give_gradients_of_the_parameters_type() -> None:
    x = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    pool = PPool2d(3, 2)
    y = pool(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in pool.parameters())
