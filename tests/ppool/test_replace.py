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


def test_the_soft_form_hears_zeros_from_its_first_batch_on() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
    pool = replace_pooling(model, x, **PPool2d.SOFT).replaced["1"]
    # Mean size 1, so the offset is 3: (7 * 7 + 3 * 3 * 3) / (7 + 3 * 3) - 3.
    assert model.train()(x).item() == pytest.approx(1.75)
    assert pool.alpha(x).item() == 1.0


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


class Joined(nn.Module):
    """Several inputs, a pool called by keyword, and one by function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.head = Functional()

    def forward(self, image: Tensor, *, depth: Tensor, scale: float = 1.0) -> Tensor:
        joined = self.first(image).relu() + scale * self.second(depth).relu()
        return self.head(self.pool(input=joined))


class SamePadding(nn.MaxPool2d):
    """A pool that does something else, as TensorFlow's padding does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def test_several_inputs_keywords_and_functions_are_followed() -> None:
    example = {"image": torch.rand(1, 3, 14, 14), "depth": torch.rand(1, 1, 14, 14)}
    model = Joined()
    report = replace_pooling(model, example)
    assert list(report.replaced) == ["pool"]
    assert list(report.kept) == ["torch.nn.functional.max_pool2d in head"]
    assert model(**example).shape == (1, 4, 3, 3)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.pool(a + b)

    pair = Pair()
    assert list(replace_pooling(pair, (torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4))).replaced)


def test_every_module_stays_in_the_mode_it_was_in() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.MaxPool2d(2), nn.AvgPool2d(2)
    ).train()
    model[1].eval()
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace_pooling(model, torch.rand(1, 3, 16, 16))
    assert [layer.training for layer in model] == [True, False, True, True, False]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_modes_come_back_after_an_example_that_fails() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)).train()
    model[0].eval()
    with pytest.raises(RuntimeError):
        replace_pooling(model, torch.rand(1, 5, 16, 16))
    assert [layer.training for layer in (model, *model)] == [True, False, True]
    assert not model[1]._forward_hooks


def test_a_pool_of_its_own_kind_and_a_model_that_is_a_pool_are_named() -> None:
    report = replace_pooling(nn.Sequential(SamePadding(2)), torch.rand(1, 2, 7, 7))
    assert report.kept == {"0": "SamePadding pools in a way of its own"}
    alone = replace_pooling(nn.MaxPool2d(2), torch.rand(1, 2, 4, 4))
    assert "put it into a torch.nn.Sequential" in alone.kept["MaxPool2d"]


def test_unpadded_averages_carry_no_note() -> None:
    model = nn.Sequential(nn.AvgPool2d(2, padding=(0, 0)))
    assert not replace_pooling(model, torch.rand(1, 1, 4, 4)).notes
