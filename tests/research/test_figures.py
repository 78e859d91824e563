"""The figure commands end to end on small data, and the facts that the figures show."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from ppool import PPool2d, ppool2d
from ppool.feeding import Normalisation, feed
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.training.dataset import Sample
from ppool.training.evaluate import fed, predict
from research.__main__ import app
from research.figures.alpha_maps import alpha_maps
from research.figures.gains import class_gains
from research.figures.masks import chosen_indices, draw_masks
from research.figures.surfaces import lp_norm

AS_IS = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a figure command and name the pictures it made, each opened and found not empty."""

    def run(*arguments: object) -> list[str]:
        folder = tmp_path / "out"
        words = ["figure", *map(str, arguments), "-o", str(folder)]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        files = sorted(folder.iterdir())
        assert [line.removeprefix("wrote ") for line in sorted(result.output.splitlines())] == [
            str(path) for path in files
        ]
        for path in files:
            if path.suffix == ".png":
                assert np.asarray(Image.open(path).convert("L")).std() > 10
            else:
                assert "<svg" in path.read_text()
        return [path.name for path in files]

    return run


def refused(*arguments: object) -> str:
    """What a figure command says as it fails."""
    words = ["figure", *map(str, arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 1
    return result.output


def checkpoint(path: Path, pooling: str = "ppool") -> Path:
    torch.manual_seed(0)
    model = create_model("unet_small", pooling=pooling, num_classes=2)
    for module in model.modules():
        if isinstance(module, PPool2d):
            torch.nn.init.normal_(module.point_weight)
    Checkpoint(
        network="unet_small",
        pooling=pooling,
        classes=(LabelClass(0, "no", "#ffffff"), LabelClass(1, "yes", "#000000")),
        input=InputPolicy(48, 16),
        mean=AS_IS.mean,
        std=AS_IS.std,
        state_dict=model.state_dict(),
    ).save(path)
    return path


def photo(path: Path, rng: np.random.Generator) -> Path:
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return path


def record(seed: int, **iou: float | None) -> dict[str, object]:
    return {"recipe": {"seed": seed, "network": "vgg_small"}, "held_out": {"iou": iou}}


def test_figure_2_is_drawn(draw: Callable[..., list[str]]) -> None:
    assert draw(2) == ["figure-2.png", "figure-2.svg"]


def test_figure_3_is_drawn(draw: Callable[..., list[str]]) -> None:
    names = ("figure-3", "figure-3-gradients", "figure-3-lp")
    assert draw(3) == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))


@pytest.mark.parametrize("by_column", [False, True])
def test_figure_5_is_drawn_from_a_comparison_and_from_a_table(
    draw: Callable[..., list[str]], tmp_path: Path, by_column: bool
) -> None:
    runs = {
        "ppool": [record(0, pole=0.4, road=0.9), record(1, pole=0.5, road=0.8)],
        "max": [record(0, pole=0.3, road=0.9), record(1, pole=0.2, road=0.9)],
    }
    path = tmp_path / "results.json"
    columns = {"fineshapes/vgg_small": runs, "fineshapes/resnet_small": runs}
    path.write_text(json.dumps({"results": columns if by_column else runs}))
    assert draw(5, path) == ["figure-5.png", "figure-5.svg"]


def test_gains_are_paired_by_seed_and_the_largest_comes_first() -> None:
    runs = {
        "ppool": [record(1, road=0.8, pole=0.5, sky=None), record(0, road=0.9, pole=0.4, sky=None)],
        "max": [record(0, road=0.9, pole=0.3, sky=0.1), record(1, road=0.9, pole=0.2, sky=0.1)],
    }
    gains = class_gains(runs, "ppool", "max")
    assert list(gains) == ["pole", "road"]
    assert gains["pole"] == pytest.approx([10, 30])
    assert gains["road"] == pytest.approx([0, -10])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected results that"),
        ('{"results": []}', "expected results that"),
        ('{"results": {"max": []}}', "expected results that"),
        (json.dumps({"max": [record(0, a=1)]}), "pooling: expected one of max, got 'ppool'"),
        (json.dumps({"max": [record(0, a=1)], "ppool": [record(1, a=1)]}), "share, got none"),
    ],
)
def test_a_file_that_holds_no_comparison_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    assert message in refused(5, path)


def test_the_mechanism_is_drawn_from_what_was_measured(
    draw: Callable[..., list[str]], tmp_path: Path
) -> None:
    learned = {"alpha": [0, 1, 2, 3, 4], "doubling": 0.1, "bias_gradient": 1e-3}
    stage = {"zeros": 0.5, "position": 1, "as_max": 0, "alpha": None}
    networks = {
        f"runs/{name}-0/checkpoint.pt": {"stages": {"pool1": of}, "consistency": {"1": 1, "7": 0.5}}
        for name, of in (("max", stage), ("ppool", stage | learned))
    }
    path = tmp_path / "mechanism.json"
    path.write_text(json.dumps({"networks": networks}))
    assert draw("mechanism", path) == ["mechanism.png", "mechanism.svg"]
    words = (tmp_path / "out" / "mechanism.svg").read_text()
    assert all(f"<!-- {word} -->" in words for word in ("max-0", "ppool-0", "pool1"))
    path.write_text('{"networks": 1}')
    assert "expected what `python -m research mechanism` wrote" in refused("mechanism", path)


def test_figure_6_is_drawn(
    draw: Callable[..., list[str]], tmp_path: Path, rng: np.random.Generator
) -> None:
    arguments = checkpoint(tmp_path / "checkpoint.pt"), photo(tmp_path / "photo.png", rng)
    assert draw(6, *arguments) == ["figure-6.png", "figure-6.svg"]


def test_a_network_without_p_pooling_and_a_file_that_is_no_photo_are_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    plain = checkpoint(tmp_path / "checkpoint.pt", "max")
    said = refused(6, plain, photo(tmp_path / "photo.png", rng))
    assert "expected a network with P-pooling, got 'max'" in said
    assert "checkpoint.pt: " in refused(6, checkpoint(tmp_path / "other.pt"), plain)


def test_alpha_maps_are_what_the_poolings_used(tmp_path: Path, rng: np.random.Generator) -> None:
    model = Checkpoint.load(checkpoint(tmp_path / "checkpoint.pt")).build()
    image = rng.integers(0, 256, (32, 48, 3), np.uint8)
    stages = alpha_maps(model, feed(image, InputPolicy(48, 16), (32, 48)), AS_IS)
    assert [entry.stage for entry in stages] == ["pool1", "pool2", "pool3", "pool4"]
    assert [entry.alpha.shape[1:] for entry in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    x = model.get_submodule("stem")(torch.from_numpy(AS_IS(image[None]))).relu()
    expected = model.get_submodule("pool1").alpha(x)[0]  # type: ignore[operator]
    np.testing.assert_allclose(stages[0].alpha, expected.detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stages[0].channel_means, stages[0].alpha.mean((1, 2)))
    assert stages[0].bias == pytest.approx(2.0)


def p_norm(x: Tensor, alpha: float) -> Tensor:
    """P-pooling with the interface of Lp."""
    return ppool2d(x[None], torch.full((1, len(x), 1), alpha, dtype=x.dtype), (1, x.shape[1]))[
        0, :, 0
    ]


class TestLpPooling:
    """What the supplement's Section 2 and Section 3.6 say against Lp pooling, beside P-pooling."""

    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 10.0])
    def test_its_result_exceeds_every_input(self, p: float) -> None:
        x = torch.ones(1, 4, dtype=torch.float64)
        assert lp_norm(x, p).item() == pytest.approx(4 ** (1 / p))
        assert p_norm(x, p).item() == pytest.approx(1)

    @pytest.mark.parametrize("p", [0.5, 1.0, 3.0])
    def test_its_gradient_has_another_exponent_than_the_supplement_says(self, p: float) -> None:
        x = torch.tensor([[0.9, 0.5, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
        expected = x ** (p - 1) * (x**p).sum() ** ((1 - p) / p)  # not p / (1 - p)
        assert torch.allclose(torch.autograd.grad(lp_norm(x, p).sum(), x)[0], expected)

    def test_its_gradient_at_order_1_is_not_that_of_average_pooling(self) -> None:
        x = torch.tensor([[0.9, 0.5, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.grad(lp_norm(x, 1.0).sum(), x)[0].tolist() == [[1.0] * 4]
        average = torch.autograd.grad(p_norm(x, 0.0).sum(), x)[0]
        assert average.tolist() == [[0.25] * 4]

    @pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
    def test_a_window_of_zeros_has_no_gradient(self, p: float) -> None:
        x = torch.zeros(1, 4, requires_grad=True)
        assert torch.autograd.grad(lp_norm(x, p).sum(), x)[0].isnan().all()
        assert torch.autograd.grad(p_norm(x, p).sum(), x)[0].tolist() == [[0.25] * 4]

    def test_its_slope_in_the_order_explodes_towards_0(self) -> None:
        x = torch.tensor([1.0, 0.8, 0.5, 0.2], dtype=torch.float64)
        orders = torch.tensor([1.0, 0.1, 0.03], dtype=torch.float64, requires_grad=True)
        slopes = torch.autograd.grad(sum(lp_norm(x, p) for p in orders), orders)[0].abs()  # type: ignore[arg-type]
        assert slopes[1] > 1e6 * slopes[0]
        assert slopes[2] > 1e6 * slopes[1]
        alpha = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(ppool2d(x.view(1, 1, 4), alpha, (1, 4)).sum(), alpha)[0]
        assert 0 < slope.item() < 1

    @pytest.mark.parametrize("scale", [0.05, 20.0])
    def test_large_orders_leave_float32(self, scale: float) -> None:
        """The limit that should be max pooling underflows to 0 / 0 or overflows."""
        x = torch.tensor([[1.0, 0.7, 0.4, 0.1]]).mul(scale).requires_grad_()
        assert not torch.autograd.grad(lp_norm(x, 35.0).sum(), x)[0].isfinite().all()
        pooled = p_norm(x, 35.0)
        assert pooled.item() == pytest.approx(scale, rel=1e-4)
        slope = torch.autograd.grad(pooled.sum(), x)[0]
        assert slope[0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-3)


class Streets:
    """Five random photographs of 24 x 40."""

    classes = (LabelClass(0, "road", "#804080"), LabelClass(1, "pole", "#c0c080"))

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (24, 40))
        return Sample(rng.integers(0, 256, (24, 40, 3), np.uint8), mask)


def panel(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = 24 + 28 * row, 44 * column
    return picture[top : top + 24, left : left + 40]


def test_masks_are_shown_pixel_for_pixel(tmp_path: Path) -> None:
    networks = []
    for name in ("max", "ppool"):
        (tmp_path / f"{name}-0").mkdir()
        networks.append(checkpoint(tmp_path / f"{name}-0" / "checkpoint.pt", name))
    for path in networks:
        trained = Checkpoint.load(path)
        replace(trained, classes=Streets.classes).save(path)
    streets, colours = Streets(), np.array([[128, 64, 128], [192, 192, 128]], np.uint8)
    (path,) = draw_masks(networks, streets, tmp_path / "out", given=True)
    with_photos = np.asarray(Image.open(path))
    (path,) = draw_masks(networks, streets, tmp_path / "out", given=False)
    alone = Image.open(path)
    assert alone.mode == "P"
    for row in range(5):
        sample = streets[row]
        assert np.array_equal(panel(with_photos, row, 0), sample.image)
        void = sample.mask == 255
        label = np.where(void[..., None], 255, colours[np.where(void, 0, sample.mask)])
        assert np.array_equal(panel(with_photos, row, 1), label)
        for column, network in enumerate(networks):
            trained = Checkpoint.load(network)
            normalise = Normalisation(trained.mean, trained.std)
            mask = predict(trained.build().eval(), fed(sample, trained.input), normalise)
            for picture, before in ((with_photos, 2), (np.asarray(alone.convert("RGB")), 0)):
                assert np.array_equal(panel(picture, row, column + before), colours[mask])


def test_photographs_are_chosen_by_a_rule() -> None:
    assert chosen_indices(233) == list(range(0, 226, 25))
    assert chosen_indices(20) == list(range(0, 20, 2))
    assert chosen_indices(5) == list(range(5))


def test_masks_of_other_classes_are_refused(tmp_path: Path) -> None:
    network = checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="expected a network of the data set's classes"):
        draw_masks([network], Streets(), tmp_path, given=False)
