"""What poolings do inside a network, on inputs whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.training.dataset import Sample
from ppool.training.evaluate import Evaluation, evaluate
from research.mechanism import SHIFTS, _Seen, checked_size, measure, mechanism, window_of

CLASSES = tuple(LabelClass(i, name, f"#00000{i}") for i, name in enumerate(("sky", "pole", "road")))


class Photographs:
    """Two random photographs of 40 x 56 with random masks."""

    classes = CLASSES

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (40, 56, 3), np.uint8)
        return Sample(image, rng.integers(0, 3, (40, 56)).astype(np.uint8))


def trained(pooling: str, place: str = "after_relu", **options: Any) -> Checkpoint:
    torch.manual_seed(0)
    model = create_model(
        "squeezenet_fcn", pooling=pooling, num_classes=3, ppool_place=place, ppool_options=options
    )
    return Checkpoint(
        network="squeezenet_fcn",
        pooling=pooling,
        classes=CLASSES,
        input=InputPolicy(max_side=64, multiple=16),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        state_dict=model.state_dict(),
        ppool_place=place,
        ppool_options=options,
    )


def seen(layer: torch.nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found = _Seen(window_of(layer))
    with torch.no_grad():
        found.add(layer, x, layer(x))
    return found.means()


def test_zeros_silence_and_position_are_counted_by_window() -> None:
    x = torch.tensor([[[[0.0, 0, 4, 0], [0, 0, 0, 0]]]])
    largest, average = (seen(layer, x) for layer in (torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(2)))
    assert largest["zeros"] == 0.875
    assert largest["silent"] == 0.5
    assert (largest["position"], average["position"]) == (1.0, 0.0)


def test_a_pooling_that_knows_no_sign_is_placed_by_what_it_takes() -> None:
    x = torch.tensor([[[[-3.0, -1, 0, 0], [-5, -7, 4, 0]]]])
    for layer, position in ((torch.nn.MaxPool2d(2), 1.0), (torch.nn.AvgPool2d(2), 0.0)):
        found = seen(layer, x)
        assert found["position"] == position
        assert found["zeros"] == 0.875


def test_a_signed_pooling_hears_all_but_the_least_element() -> None:
    x = torch.tensor([[[[-3.0, -1, 2, 1]]]])
    assert seen(PPool2d(1, (1, 2), signed=True), x)["zeros"] == 0.25
    assert seen(PPool2d(1, (1, 2)), x)["zeros"] == 0.5


def test_an_offset_is_heard_where_zeros_are_not() -> None:
    pool = PPool2d(1, (1, 2), alpha_init=1.0, offset_scale=1.0)
    x = torch.tensor([[[[0.0, 2.0]]]])
    pool(x)  # settles the offset at the mean, 1
    found = seen(pool, x)
    # Of 1 and 3: 10/4, from the average 2 to the maximum 3.
    assert found["zeros"] == 0
    assert found["position"] == pytest.approx(0.5)
    assert found["doubling"] == pytest.approx(0.3, abs=1e-4)


def test_doubling_alpha_is_worked_out_by_hand() -> None:
    pool = PPool2d(1, (1, 2), alpha_init=1.0)
    found = seen(pool, torch.tensor([[[[1.0, 3.0]]]]))
    assert found["alpha"] == (1.0,) * 5
    # y is 10/4 at 1 and 28/10 at 2; from the average 2 to the maximum 3 is 1.
    assert found["position"] == pytest.approx(0.5)
    assert found["doubling"] == pytest.approx(0.3, abs=1e-4)


def test_a_network_near_max_pooling_loses_nothing_as_max_and_one_near_the_average_moves() -> None:
    samples = [Photographs()[0], Photographs()[1]]
    largest = mechanism(trained("max"), samples)
    assert [stage["as_max"] for stage in largest["stages"].values()] == [0.0] * 3
    assert largest["stages"]["pool1"]["alpha"] is None
    near = mechanism(trained("ppool", "before_relu", alpha_init=2.0), samples)
    for stage in near["stages"].values():
        assert stage["alpha"] == (2.0,) * 5
        assert stage["bias_gradient"] > 0
        assert stage["region_gradient"] == 0.0  # the branch's last weight starts at 0
        assert 0 < stage["position"] < 1
    behind = mechanism(trained("ppool"), samples)["stages"]["pool1"]
    assert behind["zeros"] > near["stages"]["pool1"]["zeros"]
    assert 0 < near["consistency"][SHIFTS[0]] <= 1


@pytest.mark.parametrize(("pooling", "times"), [("max", 1), ("average", 5)])
def test_a_network_is_scored_once_for_each_change_of_its_poolings(
    pooling: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = []

    def counted(*arguments: Any, **options: Any) -> Evaluation:
        scored.append(1)
        return evaluate(*arguments, **options)

    monkeypatch.setattr("research.mechanism.evaluate", counted)
    mechanism(trained(pooling), [Photographs()[0]])
    assert len(scored) == times


def test_the_command_writes_every_network_and_refuses_other_classes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    trained("gated").save(path)
    measure([path], Photographs(), 2, tmp_path / "mechanism.json")
    document = json.loads((tmp_path / "mechanism.json").read_text("utf-8"))
    (network,) = document["networks"].values()
    assert document["images"] == 2
    assert set(network["stages"]) == {"pool1", "pool4", "pool8"}
    others = Photographs()
    others.classes = CLASSES[:2]
    with pytest.raises(ValueError, match="expected a network of the data set's classes"):
        measure([path], others, 2, tmp_path / "other.json")


def test_a_photograph_too_small_to_move_is_said_to_be() -> None:
    assert checked_size(np.zeros((40, 56, 3), np.uint8), 16, 7) == (32, 48)
    with pytest.raises(ValueError, match="expected 23 pixels a side"):
        checked_size(np.zeros((20, 56, 3), np.uint8), 16, 7)
