"""``PPool2d``: Figure 1's unit."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from ppool import PPool2d, ppool2d
from ppool.reference import alpha_reference
from tests.windows import Case, cases


def trained(pool: PPool2d, seed: int = 0) -> PPool2d:
    """The unit with a side branch that varies from pixel to pixel."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in (pool.region.weight, pool.point_weight):
        torch.nn.init.normal_(parameter, std=2.0, generator=generator)
    return pool


def test_starts_with_alpha_at_its_initial_value_everywhere() -> None:
    alpha = PPool2d(3, 2).alpha(torch.rand(2, 3, 8, 8))
    assert torch.equal(alpha, torch.full((2, 3, 4, 4), 20.0))


def test_vgg16_branches_have_10304_parameters() -> None:
    pools = [PPool2d(channels, 2) for channels in (64, 128, 256, 512, 512)]
    assert sum(p.numel() for pool in pools for p in pool.parameters()) == 10_304


@settings(max_examples=60)
@given(case=cases(extreme=False))
def test_alpha_map_equals_the_reference(case: Case) -> None:
    pool = trained(PPool2d(case.x.shape[1], *case.arguments, input_scale=3.0)).double()  # type: ignore[arg-type]
    expected = alpha_reference(
        case.x,
        pool.region.weight.detach().numpy(),
        pool.activation.weight.detach().numpy(),
        pool.point_weight.detach().numpy(),
        pool.point_bias.detach().numpy(),
        *case.arguments,
        input_scale=3.0,
    )
    found = pool.alpha(torch.from_numpy(case.x)).detach().numpy()
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_starts_as_max_pooling_to_within_its_bound() -> None:
    x = torch.rand(2, 3, 16, 16)
    largest = F.max_pool2d(x, 2)
    assert ((largest - PPool2d(3, 2)(x)) / largest).max() <= 0.029


def test_alpha_moves_under_training() -> None:
    torch.manual_seed(0)
    pool = PPool2d(2, 2, alpha_init=2.0, input_scale=1.0)
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.1)
    x = torch.rand(4, 2, 8, 8)
    target = F.avg_pool2d(x, 2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(pool(x), target)
        loss.backward()
        optimizer.step()
    assert pool.alpha(x).mean() < 0.2


def test_detached_branch_leaves_the_trunk_only_the_gradient_of_equation_3() -> None:
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    pool = trained(PPool2d(2, 2, input_scale=1.0)).double()
    attached = copy.deepcopy(pool)
    attached.detach_branch = False
    expected = torch.autograd.grad(ppool2d(x, pool.alpha(x).detach(), 2).sum(), x)[0]
    assert torch.allclose(torch.autograd.grad(pool(x).sum(), x)[0], expected)
    assert not torch.allclose(torch.autograd.grad(attached(x).sum(), x)[0], expected)


def test_alpha_gradient_scale_multiplies_the_branch_gradient_alone() -> None:
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    plain = trained(PPool2d(2, 2, input_scale=0.1))
    scaled = copy.deepcopy(plain)
    scaled.alpha_gradient_scale = 5.0
    gradients = []
    for pool in (plain, scaled):
        gradients.append(torch.autograd.grad(pool(x).sum(), (x, pool.point_bias)))
    assert torch.allclose(gradients[0][0], gradients[1][0])
    assert torch.allclose(5 * gradients[0][1], gradients[1][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_modules_run(dtype: torch.dtype) -> None:
    y = PPool2d(3, 2).to(dtype)(torch.rand(1, 3, 8, 8, dtype=dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_autocast_trains() -> None:
    pool = PPool2d(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = pool(torch.rand(1, 3, 8, 8).bfloat16())
    y.float().sum().backward()
    assert pool.point_bias.grad is not None


def test_compiles() -> None:
    pool = trained(PPool2d(3, 2, alpha_gradient_scale=2.0))
    x = torch.rand(1, 3, 8, 8)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), pool(x))


def test_survives_a_state_dict_round_trip() -> None:
    pool, other = trained(PPool2d(3, 2)), PPool2d(3, 2)
    other.load_state_dict(pool.state_dict())
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(pool(x), other(x))


def test_impossible_alpha_range_says_so() -> None:
    with pytest.raises(ValueError, match="alpha_min <= alpha_init <= alpha_max"):
        PPool2d(3, 2, alpha_init=50.0)


@pytest.mark.parametrize(
    "shape", [(1, 3, 8, 8), (1, 400, 8, 8), (3, 8, 8), (8, 8), (1, 1, 4, 8, 8)]
)
@pytest.mark.parametrize("detach_branch", [True, False])
def test_other_channels_than_the_branch_has_say_so(
    shape: tuple[int, ...], detach_branch: bool
) -> None:
    pool = PPool2d(4, 2, detach_branch=detach_branch)
    with pytest.raises(ValueError, match=re.escape(f"or [4, H, W], got {[*shape]}")):
        pool(torch.rand(shape))


def test_tensors_on_two_devices_say_so() -> None:
    with pytest.raises(ValueError, match="x: expected on meta, got on cpu"):
        PPool2d(4, 2).to("meta")(torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="alpha: expected on cpu as x, got on meta"):
        ppool2d(torch.rand(1, 4, 8, 8), torch.rand(1, 4, 4, 4, device="meta"), 2)
