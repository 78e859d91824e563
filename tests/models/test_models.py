"""Networks by name, with any pooling, and their checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model, list_models, list_poolings, original_pooling
from ppool.reference import ppool2d_reference

# Logits of a 64 x 96 image.
SIZES = {
    "deeplab_largefov": (4, 6),
    "deeplabv3_xception": (4, 6),
    "fcn8s_inceptionv2": (8, 12),
    "resnet50": (2, 3),
    "resnet_small": (32, 48),
    "squeezenet_fcn": (8, 12),
    "unet_pages": (64, 96),
    "unet_small": (64, 96),
    "vgg16": (4, 6),
    "vgg_small": (32, 48),
}


@pytest.mark.parametrize("pooling", list_poolings())
@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_logits_are_as_large_as_the_network_says(name: str, pooling: str) -> None:
    model = create_model(name, pooling=pooling, num_classes=5).eval()
    logits = model(torch.randn(1, 3, 64, 96))
    assert logits.shape == (1, 5, *SIZES[name])


@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_max_pooling_is_the_same_before_and_after_the_relu_and_p_pooling_is_not(name: str) -> None:
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))

    def logits(pooling: str, place: str) -> torch.Tensor:
        torch.manual_seed(0)
        y: torch.Tensor = create_model(
            name, pooling=pooling, num_classes=3, ppool_place=place
        ).eval()(x)
        return y

    for pooling in ("max", "all_conv", "strided_conv"):
        after = logits(pooling, "after_relu")
        assert torch.allclose(logits(pooling, "before_relu"), after, atol=1e-5 * after.abs().max())
    after, before = logits("ppool", "after_relu"), logits("ppool", "before_relu")
    assert not torch.allclose(before, after, atol=1e-3 * after.abs().max())


def test_before_the_relu_a_stage_pools_with_eq_2_what_the_convolution_gives() -> None:
    model = create_model("vgg_small", num_classes=2, ppool_place="before_relu").eval()
    seen: list[torch.Tensor] = []
    pool = model.get_submodule("pool1")
    pool.register_forward_hook(lambda _, given, made: seen.extend((*given, made)))
    x = torch.randn(1, 3, 32, 32)
    model(x)
    assert isinstance(pool, PPool2d)
    assert torch.equal(seen[0], model.get_submodule("conv1")(x))
    assert seen[0].min() < 0
    expected = ppool2d_reference(
        seen[0].detach().double().numpy(), np.full((1, 16, 16, 16), 20.0), 2, signed=True
    )
    np.testing.assert_allclose(seen[1].detach(), expected, rtol=1e-4, atol=1e-5)


def test_options_of_p_pooling_reach_every_stage_and_the_checkpoint() -> None:
    options = {"alpha_init": 5.0, "alpha_min": 1.0, "alpha_max": 110.0, "input_scale": 2.0}
    model = create_model("vgg_small", ppool_options=options, ppool_place="before_relu")
    pools = [module for module in model.modules() if isinstance(module, PPool2d)]
    assert len(pools) == 5
    for pool in pools:
        assert (pool.alpha_min, pool.alpha_max, pool.input_scale) == (1.0, 110.0, 2.0)
        assert pool.signed
    saved = checkpoint("vgg_small", ppool_options=options, ppool_place="before_relu")
    x = torch.randn(1, 3, 32, 32)
    again = saved.build()
    torch.manual_seed(0)
    settings: dict[str, Any] = {"ppool_options": options, "ppool_place": "before_relu"}
    original = create_model("vgg_small", num_classes=2, **settings)
    assert torch.equal(again(x), original.eval()(x))


def test_poolings_can_be_mixed_by_stage() -> None:
    mixed = original_pooling("unet_small") | {"pool1": "ppool", "pool3": "average"}
    model = create_model("unet_small", pooling=mixed, num_classes=3)
    kinds = {name: type(getattr(model, name)).__name__ for name in mixed}
    assert kinds == {
        "pool1": "PPool2d",
        "pool2": "MaxPool2d",
        "pool3": "AvgPool2d",
        "pool4": "MaxPool2d",
    }


def test_unet_small_starts_without_a_checkerboard() -> None:
    logits = create_model("unet_small", num_classes=3).eval()(torch.rand(1, 3, 32, 32))
    blocks = logits.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert torch.allclose(blocks.amax(-1), blocks.amin(-1), atol=1e-6)


def test_unet_small_keeps_height_and_width() -> None:
    model = create_model("unet_small", num_classes=7).eval()
    assert model(torch.rand(1, 3, 64, 96)).shape == (1, 7, 64, 96)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "unet_large"}, "network: expected one of .*unet_small.* got 'unet_large'"),
        ({"name": "unet_small", "pooling": "min"}, "pooling: expected one of .*max.* got 'min'"),
        ({"name": "vgg16", "ppool_place": "inside"}, "ppool_place: expected after_relu or before"),
        ({"name": "unet_small", "pooling": {"pool1": "max"}}, "expected a name for stage 'pool2'"),
        (
            {"name": "vgg16", "pooling": {"pool6": "max"}},
            "expected the stages pool1, .* got .*pool6",
        ),
    ],
)
def test_unknown_names_list_the_known_ones(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)  # type: ignore[arg-type]


def checkpoint(network: str = "unet_small", **settings: Any) -> Checkpoint:
    torch.manual_seed(0)
    model = create_model(network, num_classes=2, **settings)
    return Checkpoint(
        **settings,
        network=network,
        pooling="ppool",
        classes=(LabelClass(0, "paper", "#ffffff"), LabelClass(1, "ink", "#000080")),
        input=InputPolicy(256, 16),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        state_dict=model.state_dict(),
        training={"seed": 0, "held_out": {"mean_iou": 0.5}},
    )


def test_checkpoint_round_trip_rebuilds_the_same_network(tmp_path: Path) -> None:
    saved = checkpoint()
    saved.save(tmp_path / "checkpoint.pt")
    loaded = Checkpoint.load(tmp_path / "checkpoint.pt")
    assert (loaded.classes, loaded.input, loaded.training) == (
        saved.classes, saved.input, saved.training
    )  # fmt: skip
    model = loaded.build()
    assert not model.training
    assert any(isinstance(module, PPool2d) for module in model.modules())
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(x), saved.build()(x))


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for content in (b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pt: not a checkpoint written by"):
            Checkpoint.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        Checkpoint.load(path)


def test_weights_of_another_network_are_refused() -> None:
    classes = (LabelClass(0, "paper", "#ffffff"), LabelClass(1, "ink", "#000000"))
    weights = create_model("unet_small", num_classes=3).state_dict()
    policy, grey = InputPolicy(max_side=64, multiple=16), (0.5, 0.5, 0.5)
    checkpoint = Checkpoint(
        network="unet_small",
        pooling="ppool",
        classes=classes,
        input=policy,
        mean=grey,
        std=grey,
        state_dict=weights,
    )
    with pytest.raises(ValueError, match=r"(?s)expected weights of unet_small: .*head\.weight"):
        checkpoint.build()
