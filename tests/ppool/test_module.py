"""``PPool2d``: Figure 1's unit."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from ppool import PPool2d, ppool2d
from ppool.reference import alpha_reference, ppool2d_reference
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


def test_with_an_offset_zeros_count() -> None:
    torch.manual_seed(0)
    x = torch.relu(torch.randn(2, 3, 9, 9)).double()
    pool = trained(
        PPool2d(3, 3, 2, offset_scale=2.0, alpha_init=4.0, input_scale=1.0, detach_branch=False)
    ).double()
    pool.eval()(x)
    assert not pool.get_buffer("offset").any()
    y = pool.train()(x)
    offset = pool.get_buffer("offset")
    wanted = 2 * x.mean((0, 2, 3), keepdim=True)[0]
    torch.testing.assert_close(offset, wanted, rtol=1e-6, atol=0)
    raised = (x + offset).numpy()
    alpha = alpha_reference(
        raised, *(p.detach().numpy() for p in pool._parameters_of_branch()), 3, 2, input_scale=1.0
    )
    assert np.allclose(pool.alpha(x).detach().numpy(), alpha, rtol=1e-9)
    assert np.ptp(alpha) > 1
    expected = ppool2d_reference(raised, alpha, 3, 2) - offset.numpy()
    assert np.allclose(y.detach().numpy(), expected, rtol=1e-9)
    assert torch.autograd.gradcheck(pool, x[:1, :, :3, :3].clone().requires_grad_())
    torch.testing.assert_close(pool(x[0]), pool(x)[0])


def test_at_alpha_0_an_offset_gives_the_average_over_zeros_as_well() -> None:
    x = torch.relu(torch.randn(2, 3, 8, 8))
    pool = PPool2d(3, 2, offset_scale=1.0, alpha_init=0.0, alpha_min=0.0)
    torch.testing.assert_close(pool(x), F.avg_pool2d(x, 2), atol=1e-6, rtol=1e-5)


def test_an_offset_is_taken_once_and_kept_with_the_weights() -> None:
    pool = PPool2d(3, 2, offset_scale=1.0)
    pool(torch.rand(2, 3, 8, 8))
    again = PPool2d(3, 2, offset_scale=1.0)
    again.load_state_dict(pool.state_dict())
    again(9 * torch.rand(2, 3, 8, 8))
    assert torch.equal(again.get_buffer("offset"), pool.get_buffer("offset"))
    assert "offset" not in PPool2d(3, 2).state_dict()
    with pytest.raises(ValueError, match="offset_scale: expected a finite number >= 0, got -1"):
        PPool2d(3, 2, offset_scale=-1)


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
