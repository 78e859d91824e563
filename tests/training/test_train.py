"""Training on small drawn images: seeded, resumable to the same numbers, honest about settings."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import Checkpoint
from training import train as train_module
from training.compare import compare, table
from training.crops import CropSampler
from training.evaluate import IGNORE
from training.pages import Page
from training.recipe import Recipe, learning_rate
from training.train import class_weights, train

TINY = Recipe(
    iterations=4, batch_size=2, crop=32, warmup_iterations=1, pooling="ppool", precision="float32"
)


def tiny_pages(count: int) -> list[Page]:
    """Bright squares (class 6) on dark ground (class 0)."""
    rng = np.random.default_rng(0)
    pages = []
    for _ in range(count):
        mask = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(0, 24, 2)
        mask[top : top + 16, left : left + 16] = 6
        image = np.where(mask[..., None] > 0, 200, 40) + rng.integers(-20, 20, (40, 48, 3))
        pages.append(Page(image.astype(np.uint8), mask))
    return pages


def weights_of(checkpoint: Checkpoint) -> NDArray[np.float32]:
    return np.concatenate([v.float().numpy().ravel() for v in checkpoint.state_dict.values()])


def test_the_loss_falls(tmp_path: Path) -> None:
    recipe = replace(TINY, iterations=40)
    train(recipe, tiny_pages(4), tiny_pages(2), tmp_path)
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in
              (tmp_path / "log.jsonl").read_text().splitlines()]  # fmt: skip
    assert losses[-1] < 1.0 < np.log(7)


def test_an_interrupted_run_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, held_out = tiny_pages(4), tiny_pages(1)
    whole = train(TINY, pages, held_out, tmp_path / "whole")

    monkeypatch.setattr(train_module, "SAVE_EVERY", 2)
    step, calls = train_module.train_one_iteration, []

    def fails_at_the_fourth(*arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "train_one_iteration", fails_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, pages, held_out, tmp_path / "broken")
    monkeypatch.setattr(train_module, "train_one_iteration", step)
    resumed = train(TINY, pages, held_out, tmp_path / "broken")
    assert np.array_equal(weights_of(whole), weights_of(resumed))


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(TINY, tiny_pages(2), tiny_pages(1), tmp_path)
    with pytest.raises(ValueError, match="holds a run with other settings"):
        train(replace(TINY, seed=1), tiny_pages(2), tiny_pages(1), tmp_path)


def test_a_finished_run_keeps_its_record(tmp_path: Path) -> None:
    record = train(TINY, tiny_pages(2), tiny_pages(1), tmp_path).training
    assert record["recipe"]["seed"] == 0
    assert set(record["held_out"]) >= {"mean_iou", "iou", "pixel_accuracy", "pages"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["commit"]
    assert set(record["alpha"]) == {f"alpha/pool{i}" for i in range(1, 5)}


def test_comparison_trains_every_pooling_and_seed_and_prints_their_spread(tmp_path: Path) -> None:
    recipe = replace(TINY, iterations=1)
    results = compare(recipe, ["ppool", "max"], [0, 1], (tiny_pages(2), tiny_pages(1)), tmp_path)
    assert {pooling: len(runs) for pooling, runs in results.items()} == {"ppool": 2, "max": 2}
    assert (tmp_path / "results.json").exists()
    grid = table(results)
    assert [column.header for column in grid.columns] == [
        "class",
        "ppool (2 seeds)",
        "max (2 seeds)",
    ]
    assert "±" in str(list(grid.columns[1].cells)[-1])


def test_schedule_warms_up_to_the_peak_and_ends_at_zero() -> None:
    recipe = Recipe(iterations=100, warmup_iterations=10, learning_rate=1.0)
    rates = [learning_rate(recipe, i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"iterations": 0}, "iterations: expected at least 1"), ({"precision": "int8"}, "'int8'")],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_settings_survive_their_file_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    TINY.save(path)
    assert Recipe.load(path) == TINY
    path.write_text('{"colour": 1}')
    with pytest.raises(ValueError, match=r"recipe\.json: not the settings of a run"):
        Recipe.load(path)


def test_batches_depend_on_seed_and_iteration_alone() -> None:
    def sampler(seed: int) -> CropSampler:
        return CropSampler(tiny_pages(3), crop=32, batch_size=2, seed=seed)

    images, masks = sampler(0).batch(5)
    again_images, again_masks = sampler(0).batch(5)
    assert images.shape == (2, 32, 32, 3)
    assert np.array_equal(images, again_images)
    assert np.array_equal(masks, again_masks)
    assert not np.array_equal(images, sampler(1).batch(5)[0])


def test_crops_larger_than_the_page_are_padded_and_ignored() -> None:
    _, masks = CropSampler(tiny_pages(1), crop=64, batch_size=1, seed=0).batch(0)
    assert (masks[0, 40:] == IGNORE).all()
    assert (masks[0, :, 48:] == IGNORE).all()
    assert (masks[0, :40, :48] != IGNORE).all()


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(tiny_pages(4), 7)
    assert weights[6] > weights[0]
