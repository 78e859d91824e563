"""Groups of parameters: every parameter once, side branches apart and without decay."""

import pytest
import torch
from torch import nn

from ppool import PPool2d, parameter_groups, replace_pooling


def network() -> nn.Module:
    conv = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), PPool2d(4, 2), nn.Conv2d(4, 2, 1))


def test_every_parameter_is_in_one_group_and_branches_do_not_decay() -> None:
    model = network()
    groups = parameter_groups(model, 0.1, weight_decay=0.01, branch_scale=3, bias_scale=50)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    pool = model[3]  # type: ignore[index]
    assert found[id(pool.point_bias)] == (pytest.approx(5.0), 0.0)
    for parameter in (pool.region.weight, pool.activation.weight, pool.point_weight):
        assert found[id(parameter)] == (pytest.approx(0.3), 0.0)
    assert found[id(model[0].weight)] == (0.1, 0.01)  # type: ignore[index]
    assert found[id(model[0].bias)] == found[id(model[1].weight)] == (0.1, 0.0)  # type: ignore[index]


def test_frozen_parameters_and_networks_without_p_pooling() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2))
    model[0].weight.requires_grad_(False)
    (group,) = parameter_groups(model, 1.0, weight_decay=1.0)
    assert group["params"] == [model[0].bias]
    assert parameter_groups(nn.MaxPool2d(2), 1.0) == []


def test_a_step_moves_alpha_as_far_as_the_helper_says() -> None:
    model = network()
    pool = model[3]  # type: ignore[index]
    optimizer = torch.optim.Adam(parameter_groups(model, 1e-3))
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    moved = (pool.point_bias.detach() - 20).abs()
    assert moved.max() == pytest.approx(0.1, rel=1e-2)


def test_replaced_poolings_are_found_and_a_shared_unit_is_counted_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    replace_pooling(model, torch.rand(1, 3, 8, 8))
    assert len(parameter_groups(model, 1.0)) == 3
    twice = nn.Sequential(pool := PPool2d(3, 2), pool)
    assert sum(len(g["params"]) for g in parameter_groups(twice, 1.0)) == 4
