"""Training on small drawn images: seeded, resumable to the same numbers, honest about settings."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.training import progress
from ppool.training import train as train_module
from ppool.training.compare import compare, table
from ppool.training.crops import CropSampler, batches
from ppool.training.dataset import IGNORE, Sample
from ppool.training.datasets.files import FilePairs
from ppool.training.identity import identity
from ppool.training.loss import balancing_weights
from ppool.training.optimizer import parameter_groups
from ppool.training.recipe import FINE_TUNING, Recipe, learning_rate
from ppool.training.train import Runtime, train
from research.pages import PAGE_CLASSES

ROOT = Path(__file__).parents[2]

TINY = Recipe(
    iterations=4, batch_size=2, crop=32, warmup_iterations=1, pooling="ppool", precision="float32"
)


# No batch norm: its statistics are those of one part of a batch.
SMALL = replace(TINY, network="vgg_small", batch_size=4, loss="mean")


@dataclass(frozen=True, eq=False)
class InMemory:
    """Samples that are all there."""

    samples: Sequence[Sample]
    classes: tuple[LabelClass, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def tiny_pages(count: int) -> InMemory:
    """Bright squares (class 6) on dark ground (class 0)."""
    rng = np.random.default_rng(0)
    pages = []
    for _ in range(count):
        mask = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(0, 24, 2)
        mask[top : top + 16, left : left + 16] = 6
        image = np.where(mask[..., None] > 0, 200, 40) + rng.integers(-20, 20, (40, 48, 3))
        pages.append(Sample(image.astype(np.uint8), mask))
    return InMemory(pages, PAGE_CLASSES)


def weights_of(checkpoint: Checkpoint) -> NDArray[np.float32]:
    return np.concatenate([v.float().numpy().ravel() for v in checkpoint.state_dict.values()])


def test_the_loss_falls(tmp_path: Path) -> None:
    recipe = replace(TINY, iterations=40)
    train(recipe, tiny_pages(4), tiny_pages(2), tmp_path)
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in
              (tmp_path / "log.jsonl").read_text().splitlines()]  # fmt: skip
    assert losses[-1] < 1.0 < np.log(7)


@pytest.mark.parametrize(
    "recipe",
    [
        TINY,
        replace(SMALL, optimizer="sgd", schedule="step", step_at=2, augmentation="mirror"),
        replace(SMALL, network="deeplab_largefov", batch_size=1),
        replace(TINY, precision="float16"),
    ],
    ids=["adamw", "momentum", "dropout", "float16"],
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages, held_out = tiny_pages(4), tiny_pages(1)
    whole = train(recipe, pages, held_out, tmp_path / "whole")

    monkeypatch.setattr(train_module, "SAVE_EVERY", 2)
    monkeypatch.setattr(progress, "LOG_EVERY", 1)
    step, calls = train_module.train_one_iteration, []

    def fails_at_the_fourth(*arguments: object) -> float | None:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "train_one_iteration", fails_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, pages, held_out, tmp_path / "broken")
    monkeypatch.setattr(train_module, "train_one_iteration", step)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    resumed = train(recipe, pages, held_out, tmp_path / "broken")
    assert "begun on 1 threads and goes on on 3" in caplog.text
    assert len(calls) == 4
    logged = (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in logged]
    assert [entry["iteration"] for entry in entries if "loss" in entry] == [1, 2, 3, 4]
    assert np.array_equal(weights_of(whole), weights_of(resumed))


@pytest.mark.parametrize("loss", ["mean", "sum", "balanced"])
def test_a_batch_in_parts_gives_the_weights_of_the_whole_batch(tmp_path: Path, loss: str) -> None:
    # A crop larger than the page leaves parts with unequal numbers of labelled pixels.
    recipe = replace(
        SMALL, loss=loss, crop=64, optimizer="sgd", learning_rate=1e-5 if loss == "sum" else 1e-2
    )
    pages = tiny_pages(3)
    whole = train(recipe, pages, tiny_pages(1), tmp_path / "whole")
    parts = train(replace(recipe, accumulate=2), pages, tiny_pages(1), tmp_path / "parts")
    np.testing.assert_allclose(weights_of(parts), weights_of(whole), rtol=1e-4, atol=1e-6)


def test_two_processes_train_and_evaluate_as_one_does(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 3)):
        for index in range(count):
            page = tiny_pages(count)[index]
            for kind, values in (("images", page.image[..., ::-1]), ("masks", page.mask)):
                path = tmp_path / "data" / split / kind / f"{index:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), values)
    recipe = replace(SMALL, iterations=3, optimizer="sgd", learning_rate=1e-2, accumulate=2)
    recipe.save(tmp_path / "recipe.json")
    arguments = ["run", "--data", "data", "--recipe", "recipe.json", "--threads", "1", "-o"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in (["-m", "research", *arguments, "one"],
                    [*launch, "-m", "research", *arguments, "two"]):  # fmt: skip
        subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
    one, two = (Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    np.testing.assert_allclose(weights_of(two), weights_of(one), rtol=1e-4, atol=1e-6)
    assert two.training["held_out"] == one.training["held_out"]


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a divisor of batch_size 4"):
        replace(SMALL, accumulate=3)


def test_classification_gives_a_whole_image_one_label(tmp_path: Path) -> None:
    recipe = replace(SMALL, task="classification")
    dark = InMemory([Sample(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 2, np.uint8))] * 2,
                    PAGE_CLASSES)  # fmt: skip
    scores = train(replace(recipe, iterations=20), dark, dark, tmp_path).training["held_out"]
    assert scores["pixel_accuracy"] == scores["iou"][PAGE_CLASSES[2].name] == 1.0


def test_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    train(TINY, tiny_pages(1), tiny_pages(1), tmp_path, runtime=Runtime(tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_without_tensorboard_its_curves_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'ppool\[train\]'"):
        train(TINY, tiny_pages(1), tiny_pages(1), tmp_path, runtime=Runtime(tensorboard=True))


def test_branches_learn_three_times_as_fast_and_the_new_head_ten_times() -> None:
    model = create_model("vgg_small", num_classes=7)
    groups = {g["scale"]: g for g in parameter_groups(model, replace(FINE_TUNING, seed=1))}
    assert set(groups) == {1.0, 3.0, 10.0, 20.0}
    branch = {id(p) for m in model.modules() if isinstance(m, PPool2d) for p in m.parameters()}
    assert {id(p) for p in groups[3.0]["params"]} == branch
    assert groups[3.0]["weight_decay"] == 0.0


def test_an_alpha_beyond_the_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"alpha: expected .* alpha_init <= alpha_max, got 0\.0001, 50\.0, 35\.0"
    ):
        train(replace(TINY, alpha_init=50.0), tiny_pages(1), tiny_pages(1), tmp_path)


def test_an_overflowed_float16_step_is_logged_and_the_schedule_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**40, growth_interval=10**6)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    rates: list[float] = []
    step = train_module.train_one_iteration

    def noted(run: Any, iteration: int, batch: Any) -> float | None:
        loss = step(run, iteration, batch)
        if loss is not None:
            rates.append(run.optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(train_module, "train_one_iteration", noted)
    recipe = replace(TINY, precision="float16")
    record = train(recipe, tiny_pages(2), tiny_pages(1), tmp_path).training
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    skipped = [entry for entry in entries if "skipped" in entry]
    assert len(skipped) == record["skipped_steps"] > 3
    assert rates == [learning_rate(recipe, iteration) for iteration in range(recipe.iterations)]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    recipe = replace(TINY, optimizer="sgd", learning_rate=1e38, loss="mean", iterations=10)
    with pytest.raises(ValueError, match=r"loss: not finite at iteration \d; lower learning_rate"):
        train(recipe, tiny_pages(2), tiny_pages(1), tmp_path)


def test_float16_that_overflows_at_every_scale_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "MOST_SKIPPED", 3)
    monkeypatch.setattr(train_module, "train_one_iteration", lambda *_: None)
    with pytest.raises(ValueError, match="lower learning_rate or set precision=bfloat16"):
        train(replace(TINY, precision="float16"), tiny_pages(1), tiny_pages(1), tmp_path)


def test_the_size_that_a_recipe_names_is_the_one_that_is_scored_and_served(tmp_path: Path) -> None:
    checkpoint = train(replace(TINY, max_side=32), tiny_pages(1), tiny_pages(1), tmp_path)
    assert checkpoint.input == InputPolicy(max_side=32, multiple=16)
    with pytest.raises(ValueError, match="max_side: expected at least 1"):
        replace(TINY, max_side=0)


def test_the_place_and_range_of_p_pooling_are_the_recipes(tmp_path: Path) -> None:
    recipe = replace(SMALL, ppool_place="before_relu", alpha_init=5.0, alpha_min=1.0, alpha_max=50)
    checkpoint = train(recipe, tiny_pages(1), tiny_pages(1), tmp_path)
    pools = [m for m in checkpoint.build().modules() if isinstance(m, PPool2d)]
    assert len(pools) == 5
    assert all(pool.signed and (pool.alpha_min, pool.alpha_max) == (1.0, 50) for pool in pools)
    assert all((pool.point_bias - 5).abs().max() < 1 for pool in pools)
    with pytest.raises(ValueError, match="alpha_max: expected a number or null, got 'high'"):
        replace(TINY, alpha_max="high")  # type: ignore[arg-type]


def test_the_bias_of_a_branch_has_a_rate_of_its_own() -> None:
    model = create_model("vgg_small", num_classes=2)
    recipe = replace(SMALL, branch_learning_rate_scale=2.0, bias_learning_rate_scale=180.0)
    scales = {
        id(parameter): (group["scale"], group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }
    for pool in (m for m in model.modules() if isinstance(m, PPool2d)):
        assert scales[id(pool.point_bias)] == (180.0, 0.0)
        assert scales[id(pool.point_weight)] == scales[id(pool.region.weight)] == (2.0, 0.0)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(TINY, tiny_pages(2), tiny_pages(1), tmp_path)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed 0, now 1\)"):
        train(replace(TINY, seed=1), tiny_pages(2), tiny_pages(1), tmp_path)


@pytest.mark.parametrize("which", ["training", "held_out"])
def test_other_data_in_the_same_folder_is_refused(which: str, tmp_path: Path) -> None:
    first, other = tiny_pages(2), tiny_pages(2)
    other[1].image[0, 0] ^= 1
    train(TINY, first, tiny_pages(1), tmp_path)
    data = (other, tiny_pages(1)) if which == "training" else (first, tiny_pages(2))
    with pytest.raises(ValueError, match=rf"{which} \d images [0-9a-f]{{16}}, now 2 images"):
        train(TINY, *data, tmp_path)


def test_weights_count_by_what_they_hold_and_not_by_where_they_lie(tmp_path: Path) -> None:
    path, run = tmp_path / "weights.pt", tmp_path / "run"
    torch.save(create_model("vgg_small", num_classes=3).state_dict(), path)
    recipe = replace(SMALL, weights=str(path), iterations=1)
    first = train(recipe, tiny_pages(1), tiny_pages(1), run)
    (tmp_path / "else").mkdir()
    written = str(tmp_path / "else" / ".." / "weights.pt")
    again = train(replace(recipe, weights=written), tiny_pages(1), tiny_pages(1), run)
    assert again.training == first.training
    torch.save(create_model("vgg_small", num_classes=3).state_dict(), path)
    with pytest.raises(ValueError, match=r"weights_digest [0-9a-f]{16}, now [0-9a-f]{16}"):
        train(recipe, tiny_pages(1), tiny_pages(1), run)


def test_a_folder_begun_before_data_were_recorded_goes_on_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(TINY, tiny_pages(1), tiny_pages(1), tmp_path)
    (tmp_path / "inputs.json").unlink()
    train(TINY, tiny_pages(1), tiny_pages(1), tmp_path)
    assert "begun before runs recorded their data" in caplog.text
    (tmp_path / "inputs.json").write_text('{"training"')
    with pytest.raises(ValueError, match=r"inputs\.json: not the inputs of a run"):
        train(TINY, tiny_pages(1), tiny_pages(1), tmp_path)


def test_files_count_by_name_and_content(tmp_path: Path) -> None:
    def pairs(change: str) -> FilePairs:
        folder = tmp_path / change
        folder.mkdir()
        name = "b" if change == "name" else "a"
        image = np.full((4, 5, 3), 7, np.uint8)
        cv2.imwrite(str(folder / f"{name}.bmp"), image + (change == "content"))
        cv2.imwrite(str(folder / f"{name}.png"), image[..., 0] % 2)
        return FilePairs(
            [(folder / f"{name}.bmp", folder / f"{name}.png")], PAGE_CLASSES, {0: 0, 1: 1}
        )

    found = {change: identity(pairs(change)) for change in ("first", "moved", "name", "content")}
    assert found["first"] == found["moved"]
    assert len({entry["digest"] for entry in found.values()}) == 3


def test_what_is_wrong_with_the_data_is_found_before_the_first_iteration(tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, *data: Any) -> None:
        with pytest.raises(error, match=message):
            train(TINY, *data, tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())

    good = tiny_pages(1)
    blank = InMemory([Sample(good[0].image, np.full_like(good[0].mask, IGNORE))], PAGE_CLASSES)
    wrong = InMemory([Sample(good[0].image, good[0].mask + np.uint8(60))], PAGE_CLASSES)
    refused(ValueError, "training images: expected some pixels with a label", blank, good)
    refused(ValueError, "held-out images: expected some pixels with a label", good, blank)
    refused(ValueError, r"held-out image 0: expected labels 0 to 6 and 255, got \[60, 66\]",
            good, wrong)  # fmt: skip

    def files(mask: NDArray[np.uint8] | None) -> FilePairs:
        image, labels = tmp_path / "a.png", tmp_path / "a_mask.png"
        cv2.imwrite(str(image), good[0].image)
        labels.unlink(missing_ok=True)
        if mask is not None:
            cv2.imwrite(str(labels), mask)
        return FilePairs([(image, labels)], PAGE_CLASSES, {i: i for i in range(7)})

    refused(FileNotFoundError, r"a_mask\.png: missing", good, files(None))
    refused(FileNotFoundError, r"a_mask\.png: missing", files(None), good)
    refused(ValueError, r"a_mask\.png: expected values 0 to 6", good, files(good[0].mask + 60))
    (tmp_path / "a.png").write_bytes(b"\x89PNG cut off")


def test_what_a_run_was_begun_with_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TINY.save(tmp_path / "recipe.json")

    def cut_off(path: Path, text: str, *_: object) -> int:
        path.open("w").close()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(OSError, match="disk full"):
        replace(TINY, seed=5).save(tmp_path / "recipe.json")
    monkeypatch.undo()
    assert Recipe.load(tmp_path / "recipe.json") == TINY


def test_a_run_that_cannot_begin_leaves_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        train(replace(SMALL, weights="missing.pth"), tiny_pages(1), tiny_pages(1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_keeps_its_record(tmp_path: Path) -> None:
    record = train(TINY, tiny_pages(2), tiny_pages(1), tmp_path).training
    assert record["recipe"]["seed"] == 0
    assert set(record["held_out"]) >= {"mean_iou", "iou", "pixel_accuracy", "images"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["commit"]
    assert (record["threads"], record["processes"], record["skipped_steps"]) == (1, 1, 0)
    assert record["inputs"]["training"]["images"] == 2
    assert set(record["alpha"]) == {f"alpha/pool{i}" for i in range(1, 5)}
    for stage in record["alpha_maps"].values():
        assert stage["lowest_channel"] <= stage["mean"] <= stage["highest_channel"]


def test_comparison_trains_every_pooling_and_seed_and_prints_their_spread(tmp_path: Path) -> None:
    recipes = {name: replace(TINY, iterations=1, pooling=name) for name in ("ppool", "max")}
    results = compare(recipes, [0, 1], (tiny_pages(2), tiny_pages(1)), tmp_path)
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


def test_the_paper_steps_at_6000_and_deeplab_falls_to_zero() -> None:
    rates = [learning_rate(FINE_TUNING, i) for i in (0, 5_999, 6_000, 9_999)]
    assert rates == pytest.approx([2e-7, 2e-7, 2e-8, 2e-8])
    assert 321 * 321 * rates[0] == pytest.approx(0.0206, abs=1e-4)
    poly = replace(FINE_TUNING, schedule="poly")
    assert learning_rate(poly, 5_000) == pytest.approx(2e-7 * 0.5**0.9)
    assert learning_rate(poly, 10_000) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations: expected at least 1"),
        ({"precision": "int8"}, "'int8'"),
        ({"learning_rate": "fast"}, "learning_rate: expected float, got 'fast'"),
        ({"crop": 3.5}, "crop: expected int, got 3.5"),
        ({"network": "vgg"}, "network: expected one of .*, got 'vgg'"),
        ({"pooling": "median"}, "pooling: expected one of .*; got 'median'"),
        ({"pooling": {"pool1": "max"}}, "or one for each of pool1, pool2, pool3, pool4; got"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_single_settings_are_replaced_by_name() -> None:
    changed = TINY.changed(["alpha_init=3", "loss=sum", "mean=[0.1,0.2,0.3]"])
    assert changed == replace(TINY, alpha_init=3, loss="sum", mean=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"expected one of dataset, network, .*; got 'colour=1'"):
        TINY.changed(["colour=1"])


def test_settings_survive_their_file_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    TINY.save(path)
    assert Recipe.load(path) == TINY
    path.write_text('{"colour": 1}')
    with pytest.raises(ValueError, match=r"recipe\.json: not the settings of a run"):
        Recipe.load(path)


def test_batches_depend_on_seed_and_iteration_alone() -> None:
    def sampler(seed: int) -> CropSampler:
        return CropSampler(tiny_pages(3), replace(TINY, seed=seed))

    images, masks = sampler(0).batch(5)
    again_images, again_masks = sampler(0).batch(5)
    assert images.shape == (2, 32, 32, 3)
    assert np.array_equal(images, again_images)
    assert np.array_equal(masks, again_masks)
    assert not np.array_equal(images, sampler(1).batch(5)[0])


def test_threads_that_read_ahead_change_nothing() -> None:
    sampler = CropSampler(tiny_pages(3), TINY)
    ahead = batches(sampler, range(5), workers=2)
    for (images, masks), (plain, labels) in zip(ahead, batches(sampler, range(5), 0), strict=True):
        assert np.array_equal(images, plain)
        assert np.array_equal(masks, labels)


def test_mirrored_crops_take_their_labels_along() -> None:
    images, masks = CropSampler(
        tiny_pages(4), replace(TINY, augmentation="mirror", batch_size=8)
    ).batch(0)
    assert ((images.mean(-1) > 120) == (masks == 6)).all()


def test_crops_larger_than_the_page_are_padded_and_ignored() -> None:
    _, masks = CropSampler(tiny_pages(1), replace(TINY, crop=64, batch_size=1)).batch(0)
    assert (masks[0, 40:] == IGNORE).all()
    assert (masks[0, :, 48:] == IGNORE).all()
    assert (masks[0, :40, :48] != IGNORE).all()


def test_rare_classes_weigh_more() -> None:
    weights = balancing_weights(tiny_pages(4))
    assert weights[6] > weights[0]
