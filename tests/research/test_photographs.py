"""The experiment on photographs: nothing is scored on test before all settings are frozen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from scipy import stats
from typer.testing import CliRunner

from ppool.models import Checkpoint
from ppool.training.recipe import RECIPES
from ppool.training.train import Runtime
from research import photographs
from research.__main__ import app
from research.experiments import EXPERIMENTS, Experiment
from research.photographs import ARMS, TUNING, frozen_recipe, tuning_recipe
from research.report import grids
from research.tables import Sizes, Sources, run_table
from tests.models import layouts

COMMITTED = photographs.FROZEN

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
           "pedestrian", "bicyclist")  # fmt: skip


@pytest.fixture(autouse=True)
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the choice is written in a test."""
    monkeypatch.setattr(photographs, "FROZEN", tmp_path / "real" / "frozen.json")
    return photographs.FROZEN


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A few drawn streets as CamVid, and random weights as SqueezeNet's."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind, shape, highest in (("", (48, 64, 3), 256), ("annot", (48, 64), 12)):
            folder = root / "data" / "CamVid" / f"{split}{kind}"
            folder.mkdir(parents=True)
            for index in range(2):
                values = rng.integers(0, highest, shape, np.uint8)
                PIL.Image.fromarray(values).save(folder / f"{split}{index}.png")
    (root / "weights").mkdir()
    arrays = layouts.random_tensors(layouts.released_squeezenet())
    np.savez(root / "weights" / "squeezenet.npz", **{k: t.numpy() for k, t in arrays.items()})
    return Sources(root / "data", root / "weights")


def tuning_table(path: Path, **best: int) -> Path:
    """A finished tuning table in which the given setting of a pooling wins; others lack a run."""
    results: dict[str, Any] = {}
    for pooling, settings in TUNING.items():
        for number in range(len(settings)):
            runs = 1 if pooling in best else 0
            score = 0.6 if number == best.get(pooling) else 0.5
            results[f"{pooling}-{number}"] = [{"held_out": {"mean_iou": score}}] * runs
    path.write_text(json.dumps({"results": {"camvid/squeezenet_fcn": results}}))
    return path


def test_every_setting_is_a_row_of_the_tuning() -> None:
    assert {arm.pooling for arm in ARMS.values()} == set(TUNING)
    rows = [f"{pooling}-{n}" for pooling in TUNING for n in range(len(TUNING[pooling]))]
    assert EXPERIMENTS["camvid-tuning"].rows == tuple(rows)
    assert EXPERIMENTS["camvid-tuning"].splits == ("train", "val")


def test_settings_are_frozen_in_order_and_once(tmp_path: Path, frozen: Path) -> None:
    assert tuning_recipe("gated-0") is None
    with pytest.raises(ValueError, match=r"expected the settings of max, .* got none"):
        frozen_recipe("max", "squeezenet_fcn", "camvid")
    table = tuning_table(tmp_path / "table.json", max=1)
    assert photographs.freeze(table) == {"max": TUNING["max"][1]}
    gated = tuning_recipe("gated-0")
    assert gated is not None
    assert gated.learning_rate == TUNING["max"][1]["learning_rate"] == 1.2e-3
    with pytest.raises(ValueError, match=r"expected 1 runs of gated-0 \(0\)"):
        photographs.freeze(table)
    with pytest.raises(ValueError, match="got max; run the table camvid-tuning"):
        frozen_recipe("max", "squeezenet_fcn", "camvid")

    tuning_table(table, max=0, gated=1, ppool=1)
    chosen = photographs.freeze(table)
    assert chosen == {name: TUNING[name][1] for name in ("gated", "ppool")}
    document = json.loads(frozen.read_text())
    assert document["chosen"]["max"] == TUNING["max"][1]
    assert len(document["scores"]) == 9
    with pytest.raises(ValueError, match="nothing to freeze; all are frozen"):
        photographs.freeze(table)
    recipe = frozen_recipe("ppool", "vgg16", "drive")
    assert (recipe.network, recipe.dataset, recipe.pooling) == ("vgg16", "drive", "ppool")
    assert recipe.learning_rate == TUNING["max"][1]["learning_rate"]
    assert recipe.alpha_init == TUNING["ppool"][1]["alpha_init"]
    paper = frozen_recipe("ppool_paper", "squeezenet_fcn", "camvid")
    assert (paper.alpha_init, paper.ppool_place) == (20.0, "after_relu")


def test_the_recipe_for_photographs_is_what_was_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "FROZEN", COMMITTED)
    assert frozen_recipe("ppool", "squeezenet_fcn", "folder") == RECIPES["photographs"]


def test_nothing_is_scored_on_test_before(sources: Sources, tmp_path: Path) -> None:
    for name in ("camvid", "drive", "em", "dibco"):
        with pytest.raises(ValueError, match="nothing is scored on test before"):
            run_table(name, sources, Sizes(), tmp_path, Runtime())


def test_the_table_goes_on_from_the_max_pooled_network_where_an_arm_says_so(
    sources: Sources, tmp_path: Path
) -> None:
    photographs.freeze(tuning_table(tmp_path / "t.json", max=0))
    photographs.freeze(tuning_table(tmp_path / "t.json", gated=0, ppool=1))
    sizes = Sizes(
        seeds=1, networks=("squeezenet_fcn",), rows=("max", "max_ppool"),
        changes=("iterations=1", "batch_size=2", "crop=32", "precision=float32"),
    )  # fmt: skip
    run_table("camvid", sources, sizes, tmp_path, Runtime())
    folder = tmp_path / "camvid-squeezenet_fcn"
    first, second = (Checkpoint.load(folder / f"{row}-0" / "checkpoint.pt").training
                     for row in ("max", "max_ppool"))  # fmt: skip
    assert second["recipe"]["weights"] == str(folder / "max-0" / "checkpoint.pt")
    assert second["recipe"]["ppool_place"] == "before_relu"
    assert first["images"] == second["images"] == 4
    assert first["held_out"]["images"] == 2
    text = (tmp_path / "table-camvid.md").read_text()
    assert "| Max, then P-pooling |" in text


def test_the_command_prints_what_there_is(tmp_path: Path) -> None:
    words = ["table", "camvid-tuning", "-o", str(tmp_path), "--finished", "--pooling", "max-0"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "table-camvid-tuning.json").read_text())
    assert document["results"] == {"camvid/squeezenet_fcn": {"max-0": []}}
    wrong = CliRunner().invoke(app, [*words, "--seeds", "none"], catch_exceptions=False)
    assert wrong.exit_code == 2
    assert "--seeds: expected a whole number from 1 on, got 'none'" in wrong.output
    missing = CliRunner().invoke(app, ["freeze", str(tmp_path / "none.json")])
    assert missing.exit_code == 1


def run_of(seed: int, mean: float) -> dict[str, Any]:
    iou: dict[str, float | None] = dict.fromkeys(CLASSES, mean)
    return {
        "recipe": {"seed": seed},
        "held_out": {"iou": iou, "mean_iou": mean, "boundary_iou": mean},
        "alpha_maps": {},
    }


def tables(**means: list[float]) -> list[str]:
    column = ("camvid", "squeezenet_fcn")
    experiment = Experiment("", (column,), tuple(means), {})
    records = {row: [run_of(s, m) for s, m in enumerate(found)] for row, found in means.items()}
    return [grid.markdown() for grid in grids(experiment, {column: records})]  # type: ignore[dict-item]


def test_a_row_with_fewer_seeds_says_so_and_gains_are_of_shared_seeds() -> None:
    text = "\n".join(tables(max=[0.5, 0.7, 0.9], gated=[0.6], dpp=[]))
    assert "| pooling | camvid / squeezenet_fcn (3 seeds) |" in text
    assert "| Max | 70.0 ± 20.0 |" in text
    assert "| Gated | 60.0 (1 seed) |" in text
    assert "DPP" not in text
    assert re.search(r"\| mean IoU \| \+10\.0 \|", text)


def test_a_baseline_below_the_published_level_is_said_to_be() -> None:
    remark = "; max pooling is below the 55 of networks like squeezenet_fcn"
    below, level = ("\n".join(tables(max=[mean, mean])) for mean in (0.549, 0.55))
    assert f"**mean IoU, %{remark}**" in below
    assert remark not in level


@pytest.mark.parametrize("seeds", [2, 6])
def test_an_interval_is_students_over_paired_gains(seeds: int) -> None:
    rng = np.random.default_rng(2)
    over, gains = rng.uniform(0.5, 0.6, seeds), rng.normal(0.01, 0.01, seeds)
    text = "\n".join(tables(max=over.tolist(), ppool=(over + gains).tolist()))
    low, high = stats.ttest_1samp(100 * gains, 0).confidence_interval(0.95)
    assert f"[{low:+.1f}, {high:+.1f}] |" in text
