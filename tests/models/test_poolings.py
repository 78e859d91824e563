"""Every pooling against its published formula, one window at a time, in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppool.models._pooling import Poolings
from ppool.models.poolings import DPPool2d, GatedPool2d, LpPool2d
from ppool.reference import ppool2d_reference
from ppool.window import Window

Array = NDArray[np.float64]
WINDOWS = [
    Window.of(2),
    Window.of(2, 1),
    Window.of(3, 2, 1),
    Window.of(3, 1, 1),
    Window.of(3, 2, ceil_mode=True),
    Window.of((2, 3), (1, 2), (1, 0), (1, 2)),
]

STAGE = {"pool1": "max"}


def pool_by_hand(
    x: Array, window: Window, formula: Callable[[Array, NDArray[np.intp], int], float]
) -> Array:
    """Apply ``formula(values, taps, channel)`` to the inside of each window."""
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.padding
    dh, dw = window.dilation
    y = np.empty((*x.shape[:2], *window.output_size(*x.shape[2:])))
    for n, c, row, column in np.ndindex(*y.shape):
        inside = [
            (i * kw + j, x[n, c, row * sh - ph + i * dh, column * sw - pw + j * dw])
            for i in range(kh)
            for j in range(kw)
            if 0 <= row * sh - ph + i * dh < x.shape[2]
            and 0 <= column * sw - pw + j * dw < x.shape[3]
        ]
        taps, values = (np.array(part) for part in zip(*inside, strict=True))
        y[n, c, row, column] = formula(values, taps, c)
    return y


def example(*, signed: bool = True) -> Tensor:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x if signed else x.clamp(min=0)


@pytest.mark.parametrize("window", WINDOWS)
def test_gated_is_a_learned_mix_of_maximum_and_average(window: Window) -> None:
    pool = GatedPool2d(window).double()
    nn.init.normal_(pool.mask)
    mask = pool.mask.detach().numpy().ravel()

    def formula(values: Array, taps: NDArray[np.intp], channel: int) -> float:
        gate = 1 / (1 + np.exp(-(mask[taps] * values).sum()))
        return float(gate * values.max() + (1 - gate) * values.mean())

    x = example()
    np.testing.assert_allclose(pool(x).detach(), pool_by_hand(x.numpy(), window, formula), 1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_dpp_weighs_elements_by_how_far_they_are_from_the_mean(window: Window) -> None:
    pool = DPPool2d(3, window).double()
    offset, exponent = (p.detach().numpy() for p in (pool.offset, pool.exponent))

    def formula(values: Array, taps: NDArray[np.intp], channel: int) -> float:
        detail = (values - values.mean()) ** 2 + 1e-3
        weight = np.exp(offset[channel])
        weight = weight + (detail / detail.mean()) ** (np.exp(exponent[channel]) / 2)
        return float((weight * values).sum() / weight.sum())

    x = example()
    by_hand = pool_by_hand(x.numpy(), window, formula)
    np.testing.assert_allclose(pool(x).detach(), by_hand, 1e-10, 1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(pool(x), by_hand, 1e-10, 1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_lp_is_the_norm_of_each_window(window: Window) -> None:
    x = example(signed=False)

    def norm(values: Array, *_: object) -> float:
        return float((values**3).sum() ** (1 / 3))

    y = LpPool2d(window, signed=False)(x)
    np.testing.assert_allclose(y, pool_by_hand(x.numpy(), window, norm), 1e-12)


def test_lp_shifts_each_plane_where_it_is_signed() -> None:
    x, window = example(), Window.of(3, 2, 1)
    least = x.amin((2, 3), keepdim=True)
    expected = LpPool2d(window, signed=False)(x - least) + least
    assert torch.allclose(LpPool2d(window, signed=True)(x), expected, rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["gated", "dpp", "lp"])
def test_gradients_are_those_of_the_formula(kind: str, window: Window) -> None:
    pool = Poolings(kind, STAGE)("pool1", 2, window).double()
    x = example(signed=kind != "lp")[:1, :2].requires_grad_()
    # Away from the kinks of the maximum and of zero.
    x = (x.detach() + 0.2).requires_grad_()
    learned = tuple(pool.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: pool(x), (x, *learned))


def test_windows_of_zeros_give_zero_and_finite_gradients() -> None:
    for kind in ("gated", "dpp", "lp"):
        x = torch.zeros(1, 2, 4, 4, requires_grad=True)
        y = Poolings(kind, STAGE)("pool1", 2, Window.of(2))(x)
        y.sum().backward()
        assert not y.any()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_lp_can_exceed_every_input_and_p_pooling_cannot() -> None:
    x = torch.ones(1, 1, 2, 2)
    assert Poolings("lp", STAGE)("pool1", 1, Window.of(2))(x).item() == pytest.approx(4 ** (1 / 3))
    assert Poolings("ppool", STAGE)("pool1", 1, Window.of(2))(x).item() == pytest.approx(1)


@pytest.mark.parametrize("window", WINDOWS)
def test_average_never_counts_padding(window: Window) -> None:
    if window.dilation != (1, 1):
        pytest.skip("torch averages no dilated windows")
    x = example(signed=False)
    zeros = np.zeros((2, 3, *window.output_size(7, 8)))
    reference = ppool2d_reference(
        x, zeros, window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode
    )
    np.testing.assert_allclose(Poolings("average", STAGE)("pool1", 3, window)(x), reference, 1e-12)


@pytest.mark.parametrize("window", [Window.of(2), Window.of(3, 2, 1), Window.of(3, 1, 1)])
def test_strided_conv_is_the_same_with_and_without_a_convolution_to_stride(window: Window) -> None:
    pools = Poolings("strided_conv", STAGE)
    stride = pools.stride("pool1", window)
    assert (stride, stride) == window.stride
    assert Poolings("ppool", STAGE).stride("pool1", window) == 1
    conv, free = nn.Conv2d(3, 4, 3, stride, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    free.load_state_dict(conv.state_dict())
    moved, alone = pools("pool1", 4, window), pools("pool1", 4, window, alone=True)
    x = torch.rand(1, 3, 8, 10)
    assert torch.allclose(moved(conv(x)), alone(free(x)), atol=1e-6)


def test_p_pooling_in_place_of_an_average_starts_as_the_average() -> None:
    window, x = Window.of(3, 1, 1), torch.relu(torch.randn(2, 3, 6, 6))
    pools = Poolings("ppool", {"pool": "average"})
    average = Poolings("average", {"pool": "max"})("pool", 3, window)
    assert torch.allclose(pools("pool", 3, window)(x), average(x), atol=1e-6)
