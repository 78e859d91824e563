"""``replace_pooling`` on models that pool in every way people write it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppool import PPool2d, replace_pooling


class Shared(nn.Module):
    """One pooling layer called at two widths, as many U-Nets have it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.second(self.pool(self.first(x))))


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)


def test_replaced_max_pooling_changes_the_output_by_no_more_than_alpha_init_implies() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.rand(2, 3, 18, 18)
    before = model(x)
    report = replace_pooling(model, x)
    assert list(report.replaced) == ["2"]
    assert not report.replaced["2"].signed
    assert ((before - model(x)).abs() <= 0.029 * before + 1e-6).all()


def test_replaced_average_pooling_is_unchanged_even_where_inputs_are_zero() -> None:
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    replace_pooling(model, x)
    assert torch.allclose(model(x), before, atol=1e-6)


def test_negative_inputs_make_the_unit_signed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    pool = replace_pooling(model, torch.randn(1, 3, 16, 16)).replaced["1"]
    assert pool.signed
    assert pool.window.ceil_mode
    assert pool.window.padding == (1, 1)


def test_options_reach_every_unit() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2))
    replaced = replace_pooling(model, torch.rand(1, 3, 8, 8), alpha_init=3.0).replaced
    assert [pool.point_bias[0].item() for pool in replaced.values()] == [3.0, 3.0]


def test_a_layer_shared_between_widths_is_kept_with_the_cure() -> None:
    report = replace_pooling(Shared(), torch.rand(1, 3, 8, 8))
    assert not report.replaced
    assert "shared by inputs of 4 and 8 channels" in report.kept["pool"]


def test_a_layer_shared_at_one_width_is_replaced_once() -> None:
    pool = nn.MaxPool2d(2)
    model = nn.Sequential(pool, pool)
    replace_pooling(model, torch.rand(1, 3, 8, 8))
    assert isinstance(model[0], PPool2d)
    assert model[0] is model[1]


def test_functional_global_and_index_pools_are_named() -> None:
    model = nn.Sequential(Functional(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    report = replace_pooling(model, torch.rand(1, 3, 16, 16))
    assert list(report.replaced) == ["1"]
    assert "AdaptiveAvgPool2d" in report.kept["2"]
    assert any("as a function" in reason for reason in report.kept.values())
    text = str(report)
    assert text.count("replaced") == 1
    assert text.count("kept") == 2


def test_training_mode_device_and_dtype_follow_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)).double().train()
    pool = replace_pooling(model, torch.rand(1, 3, 8, 8, dtype=torch.float64)).replaced["1"]
    assert pool.training
    assert pool.point_bias.dtype == torch.float64


def test_average_pooling_that_counts_padding_is_noted() -> None:
    model = nn.Sequential(nn.AvgPool2d(3, 1, 1))
    assert "borders change" in str(replace_pooling(model, torch.rand(1, 3, 8, 8)))


def test_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="alpha_start"):
        replace_pooling(nn.Sequential(nn.MaxPool2d(2)), torch.rand(1, 1, 4, 4), alpha_start=1)
