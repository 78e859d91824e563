"""``ppool2d`` on PyTorch against the reference: every row and law of the operator's contract."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from ppool import _formula, _library, ppool2d
from ppool.reference import _windows, ppool2d_backward_reference, ppool2d_reference
from tests.windows import TOLERANCE, Case, cases, scale_of

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
BACKENDS = ["formula", "native"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on PyTorch operations and on the native library."""
    if request.param == "formula":
        monkeypatch.setattr(_library, "custom_ops_library", lambda: None)
    elif _library.custom_ops_library() is None:
        pytest.skip("the native library is not built")
    return str(request.param)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def stored(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The case's tensors as the backend sees them, rounded to the storage dtype."""
    return torch.from_numpy(case.x).to(dtype), torch.from_numpy(case.alpha).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(case=cases(extreme=False))
def test_forward_equals_the_reference(case: Case, backend: str, dtype: torch.dtype) -> None:
    x, alpha = stored(case, dtype)
    y = _run(backend, x, alpha, case)
    expected = ppool2d_reference(
        x.double().numpy(), alpha.double().numpy(), *case.arguments, signed=case.signed
    )
    assert y.dtype == dtype
    error = np.abs(y.double().numpy() - expected).max(initial=0)
    assert error <= TOLERANCE[name_of(dtype)] * scale_of(case)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100)
@given(case=cases())
def test_float32_stays_within_a_relative_error_of_1e_5_at_any_scale(
    case: Case, backend: str
) -> None:
    if case.signed:
        return  # the shift is exact only relative to the plane's range, tested above
    x, alpha = stored(case, torch.float32)
    y = _run(backend, x, alpha, case).double().numpy()
    expected = ppool2d_reference(x.double().numpy(), alpha.double().numpy(), *case.arguments)
    assert np.isfinite(y).all()
    assert (np.abs(y - expected) <= 1e-5 * expected).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=name_of)
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(case=cases(extreme=False))
def test_backward_equals_the_reference(case: Case, backend: str, dtype: torch.dtype) -> None:
    x, alpha = stored(case, dtype)
    grad = torch.linspace(-1, 1, alpha.numel(), dtype=dtype).reshape(alpha.shape)
    if backend == "formula":
        dx, dalpha = _formula.backward(grad, x, alpha, case.window, case.signed)
    else:
        _skip_without_library()
        w = case.window
        dx, dalpha = torch.ops.ppool.ppool2d_backward(
            grad, x, alpha, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, case.signed
        )
    expected_dx, expected_dalpha = ppool2d_backward_reference(
        grad.double().numpy(),
        x.double().numpy(),
        alpha.double().numpy(),
        *case.arguments,
        signed=case.signed,
    )
    # r ** (alpha - 1) at the floor of 1e-3 reaches 1000 for small alpha, and errors with it.
    tolerance = 1000 * TOLERANCE[name_of(dtype)]
    assert np.allclose(dx.double().numpy(), expected_dx, rtol=tolerance, atol=tolerance * 0.02)
    assert np.allclose(
        dalpha.double().numpy(), expected_dalpha, rtol=0, atol=0.1 * tolerance * scale_of(case)
    )


def test_alpha_zero_is_average_pooling_forward_and_backward(backend: str) -> None:
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64).relu().requires_grad_()
    y = ppool2d(x, torch.zeros(2, 3, 4, 5, dtype=torch.float64), 3, 2, 1)
    expected = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    assert torch.allclose(y, expected)
    grad = torch.randn_like(y)
    assert torch.allclose(
        torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(expected, x, grad)[0]
    )


def test_large_alpha_is_max_pooling_forward_and_backward(backend: str) -> None:
    x = (torch.randperm(2 * 3 * 8 * 8).double() + 1).reshape(2, 3, 8, 8).requires_grad_()
    y = ppool2d(x, torch.full((2, 3, 4, 4), 1e6, dtype=torch.float64), 2)
    expected = F.max_pool2d(x, 2)
    assert torch.allclose(y, expected)
    grad = torch.randn_like(y)
    assert torch.allclose(
        torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(expected, x, grad)[0], atol=1e-6
    )


def test_ties_share_the_gradient_of_the_maximum(backend: str) -> None:
    x = torch.tensor([[[[2.0, 2.0], [1.0, 0.0]]]], dtype=torch.float64, requires_grad=True)
    y = ppool2d(x, torch.full((1, 1, 1, 1), 1e6, dtype=torch.float64), 2)
    y.backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.tensor([[[[0.5, 0.5], [0.0, 0.0]]]], dtype=torch.float64))


def test_nan_and_infinity_pass_as_through_max_pooling(backend: str) -> None:
    x = torch.ones(1, 1, 2, 6)
    x[..., 0, 0], x[..., 1, 2] = torch.nan, torch.inf
    y = ppool2d(x, torch.full((1, 1, 1, 3), 2.0), 2)
    assert torch.equal(y.isnan(), torch.tensor([[[[True, False, False]]]]))
    assert torch.equal(y[..., 1:], torch.tensor([[[[torch.inf, 1.0]]]]))


@pytest.mark.parametrize("value", [1e-42, 1e-38, 1e30, 3e38])
@pytest.mark.parametrize("exponent", [0.0, 35.0, 110.0])
def test_denormal_and_huge_inputs_stay_finite(backend: str, value: float, exponent: float) -> None:
    x = torch.tensor([[[[value, value / 2], [0.0, value / 3]]]])
    y = ppool2d(x, torch.full((1, 1, 1, 1), exponent), 2)
    expected = ppool2d_reference(x.double().numpy(), [[[[exponent]]]], 2).item()
    # One step of the format: denormals have no relative accuracy of 1e-5 to offer.
    assert y.item() == pytest.approx(expected, rel=1e-5, abs=1.5e-45)


@given(case=cases(extreme=False))
def test_laws_bounds_homogeneity_monotonicity_and_euler(case: Case) -> None:
    if case.signed or case.x.size == 0:
        return
    x, alpha = stored(case, torch.float64)
    x.requires_grad_()
    y = ppool2d(x, alpha, *case.arguments)
    tiny = 1e-12 * scale_of(case)
    for row, column, rows, columns in _windows((x.shape[2], x.shape[3]), case.window):
        region = case.x[:, :, rows[:, None], columns].reshape(*x.shape[:2], -1)
        if region.size:
            pooled = y.detach().numpy()[:, :, row, column]
            assert (pooled <= region.max(-1) + tiny).all()
            assert (pooled >= region.min(-1) - tiny).all()
    assert torch.allclose(ppool2d(3 * x, alpha, *case.arguments), 3 * y, atol=tiny)
    assert (ppool2d(x, alpha + 0.5, *case.arguments) >= y - tiny)[alpha > 0].all()
    grad = torch.autograd.grad(y.sum(), x)[0]
    interior = not ((x > 0) & (x < 1e-3 * scale_of(case))).any()
    if interior:
        assert (x * grad).sum().item() == pytest.approx(y.sum().item(), rel=1e-9, abs=tiny)


def test_channels_last_and_non_contiguous_inputs_give_the_same(backend: str) -> None:
    x = torch.rand(2, 4, 9, 10)
    alpha = torch.rand(2, 4, 4, 5) * 9
    expected = ppool2d(x, alpha, 2)
    last = torch.channels_last
    assert torch.equal(ppool2d(x.to(memory_format=last), alpha.to(memory_format=last), 2), expected)
    wide = torch.rand(2, 4, 9, 20)
    wide[..., ::2] = x
    assert torch.equal(ppool2d(wide[..., ::2], alpha, 2), expected)


def test_a_sample_never_depends_on_its_batch(backend: str) -> None:
    x, alpha = torch.randn(5, 3, 11, 13), torch.rand(5, 3, 5, 6) * 30
    together = ppool2d(x, alpha, 2, signed=True)
    for i in range(5):
        alone = ppool2d(x[i : i + 1], alpha[i : i + 1], 2, signed=True)
        # PyTorch's own powers round differently in the vectorised body and the tail of a tensor.
        tolerance = 0 if backend == "native" else 1e-5
        assert torch.allclose(alone, together[i : i + 1], rtol=tolerance, atol=tolerance)


def test_empty_batches_pass(backend: str) -> None:
    x = torch.rand(0, 3, 8, 8, requires_grad=True)
    y = ppool2d(x, torch.rand(0, 3, 4, 4), 2)
    assert y.shape == (0, 3, 4, 4)
    y.sum().backward()


def test_gradcheck() -> None:
    torch.manual_seed(0)
    x = (torch.rand(1, 2, 7, 6, dtype=torch.float64) + 0.1).requires_grad_()
    alpha = (torch.rand(1, 2, 4, 4, dtype=torch.float64) * 8 + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, a: ppool2d(x, a, 3, 2, 1, 1, True), (x, alpha))


def test_opcheck() -> None:
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    alpha = torch.rand(1, 2, 3, 3, requires_grad=True)
    arguments = ([2, 2], [2, 2], [0, 0], [1, 1], False, False)
    torch.library.opcheck(torch.ops.ppool.ppool2d.default, (x, alpha, *arguments))


def test_compiles_without_graph_breaks() -> None:
    def pool(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return ppool2d(x, alpha, 2) * 2

    x, alpha = torch.rand(1, 2, 6, 6), torch.rand(1, 2, 3, 3)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, alpha), pool(x, alpha))


def test_unbatched_input_keeps_its_rank() -> None:
    x, alpha = torch.rand(3, 8, 8), torch.rand(3, 4, 4)
    assert torch.equal(ppool2d(x, alpha, 2), ppool2d(x[None], alpha[None], 2)[0])


@pytest.mark.parametrize(
    ("x", "alpha", "arguments", "message"),
    [
        (torch.rand(8, 8), torch.rand(4, 4), (2,), r"x: expected \[N, C, H, W\]"),
        (torch.ones(1, 1, 4, 4).int(), torch.rand(1, 1, 2, 2), (2,), "floating-point"),
        (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3), (2,), r"alpha: expected \[1, 1, 2, 2\]"),
        (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 1, 1), (5,), "too small for a window of 5"),
        (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2), (0,), "kernel: expected at least 1"),
        (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2), (2, 2, 2), "at most half of the kernel"),
        (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2), ((2, 2, 2),), "one or two ints"),
    ],
)
def test_bad_arguments_say_what_was_expected(
    x: torch.Tensor, alpha: torch.Tensor, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ppool2d(x, alpha, *arguments)  # type: ignore[arg-type]


def _skip_without_library() -> None:
    if _library.custom_ops_library() is None:
        pytest.skip("the native library is not built")


def _run(backend: str, x: torch.Tensor, alpha: torch.Tensor, case: Case) -> torch.Tensor:
    if backend == "formula":
        return _formula.forward(x, alpha, case.window, case.signed)
    _skip_without_library()
    return ppool2d(x, alpha, *case.arguments, signed=case.signed)  # type: ignore[arg-type]
