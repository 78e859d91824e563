"""Each table command end to end on tiny data, and the paper's figures against themselves."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ppool.models import create_model, list_models, list_poolings, original_pooling
from ppool.training.train import Runtime
from research import paper
from research.__main__ import app
from research.experiments import EXPERIMENTS, recipe_of
from research.fineshapes import DETAIL_CLASSES, FINE_SHAPES_CLASSES
from research.layouts import LAYOUTS, Plan, write_fineshapes
from research.report import value
from research.tables import Sizes, Sources, run_table

TINY = (
    "--iterations=1",
    "--set=batch_size=2",
    "--set=crop=32",
    "--pretraining=1",
    "--scenes=4",
    "--objects=4",
)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["table", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_small_experiment_is_published_and_resumed_run_by_run(tmp_path: Path) -> None:
    rows = ["--pooling", "max", "--pooling", "ppool", "--pooling", "pool2"]
    command = ["fineshapes", "-o", str(tmp_path), *TINY, *rows]
    run(*command, "--seeds", "1")
    first = (tmp_path / "fineshapes-vgg_small" / "ppool-0" / "checkpoint.pt").stat().st_mtime_ns
    printed = run(*command, "--seeds", "2")
    again = (tmp_path / "fineshapes-vgg_small" / "ppool-0" / "checkpoint.pt").stat().st_mtime_ns
    assert first == again
    assert "P-pooling at pool2 only" in printed

    document = json.loads((tmp_path / "table-fineshapes.json").read_text())
    assert set(document["results"]) == {"fineshapes/vgg_small", "fineshapes/resnet_small"}
    assert {k: len(v) for k, v in document["results"]["fineshapes/vgg_small"].items()} == {
        "max": 2, "ppool": 2, "pool2": 2,
    }  # fmt: skip
    assert set(document["results"]["fineshapes/resnet_small"]) == {"max", "ppool"}
    assert set(document["pretraining"]) == {"vgg_small", "resnet_small"}
    assert "gain over max pooling" in (tmp_path / "table-fineshapes.md").read_text()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes as VOC with SBD, as Cityscapes and as ADE20K, under one folder."""
    root = tmp_path_factory.mktemp("data")
    for layout in LAYOUTS:
        write_fineshapes(root, layout, Plan(count=5, height=48, width=64, seed=0))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the place of BN-Inception's."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    name = "fcn8s_inceptionv2"
    model = create_model(name, pooling=original_pooling(name), num_classes=2)
    torch.save(model.state_dict(), folder / "bn_inception-none.pth")
    return folder


@pytest.mark.parametrize(
    ("name", "options", "columns", "figure"),
    [
        ("1", ("--network=vgg_small", "--pooling=max", "--pooling=ppool"), 3, None),
        ("2", ("--network=fcn8s_inceptionv2", "--seeds=1"), 1, "62.3"),
        ("3", ("--network=fcn8s_inceptionv2",), 1, "62.99"),
        ("5", ("--network=fcn8s_inceptionv2",), 1, "68.02"),
        ("6", ("--network=vgg_small", "--pooling=max", "--pooling=pool3"), 1, None),
    ],
)
def test_a_table_of_the_paper_runs_and_prints_ours_beside_the_papers(
    name: str, options: tuple[str, ...], columns: int, figure: str | None,
    data: Path, weights: Path, tmp_path: Path,
) -> None:  # fmt: skip
    printed = run(
        name, "-o", str(tmp_path), "--data", str(data), "--weights", str(weights), *TINY, *options
    )
    document = json.loads((tmp_path / f"table-{name}.json").read_text())
    assert len(document["results"]) == columns
    for rows in document["results"].values():
        assert all(record["held_out"]["mean_iou"] is not None for (record,) in rows.values())
    assert document["notes"][0][:20] in printed
    assert figure is None or f"| {figure} |" in (tmp_path / f"table-{name}.md").read_text()


@pytest.mark.parametrize("name", ["fcn8s_inceptionv2", "vgg16"])
def test_missing_weights_are_named_with_what_to_download(
    name: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"--weights: {name} starts from .*; download it"):
        run_table("3", Sources(data, tmp_path), Sizes(networks=(name,)), tmp_path, Runtime())


def test_every_pooling_of_a_table_starts_from_the_same_classifier(tmp_path: Path) -> None:
    sizes = Sizes(
        seeds=1, networks=("vgg_small",), rows=("max", "gated"), pretraining=1, scenes=4, objects=4,
        changes=("iterations=1", "batch_size=2", "crop=32"),
    )  # fmt: skip
    run_table("fineshapes", Sources(), sizes, tmp_path, Runtime())
    document = json.loads((tmp_path / "table-fineshapes.json").read_text())
    recipes = document["recipes"]["fineshapes/vgg_small"].values()
    assert {recipe["weights"] for recipe in recipes} == {
        str(tmp_path / "pretraining-vgg_small" / "weights.pt")
    }
    assert document["pretraining"]["vgg_small"]["recipe"]["pooling"] == "max"


def test_thin_classes_are_averaged_with_absent_ones_as_nothing() -> None:
    names = [entry.name for entry in FINE_SHAPES_CLASSES]
    iou: dict[str, float | None] = dict.fromkeys(names, 1.0)
    iou[names[DETAIL_CLASSES[0]]] = None
    share = value({"held_out": {"iou": iou}}, "detail_iou", "fineshapes")
    assert share == pytest.approx(1 - 1 / len(DETAIL_CLASSES))


def test_the_papers_tables_agree_where_they_overlap() -> None:
    column = ("voc", "vgg16")
    assert paper.TABLE_6[column]["max"] == paper.TABLE_1[column]["max"] == 53.9
    assert paper.TABLE_6[column]["ppool"] == paper.TABLE_1[column]["ppool"] == 55.1
    for column, rows in paper.TABLE_1.items():
        values = [value for row, value in rows.items() if row != "ppool" and value is not None]
        assert rows["ppool"] is not None
        assert rows["ppool"] > max(values), column
    assert set(paper.TABLE_1[column]) <= set(list_poolings())


@pytest.mark.parametrize("name", ["1", "2", "3", "5", "6", "fineshapes"])
def test_every_cell_of_a_table_has_a_recipe(name: str) -> None:
    experiment = EXPERIMENTS[name]
    for _, network in experiment.columns:
        assert network in list_models()
        rows = [row for row in experiment.rows if recipe_of(network, row) is not None]
        assert {"max", "ppool"} <= set(rows) or {"original", "ppool"} <= set(rows)


@pytest.mark.parametrize("name", ["1", "2", "3", "5", "6"])
def test_missing_data_is_named_with_what_to_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--data: this table needs \w+; download it, unpack"):
        run_table(name, Sources(), Sizes(), tmp_path, Runtime())


@pytest.mark.parametrize(
    ("name", "sizes", "complaint"),
    [
        (
            "4",
            Sizes(),
            "table: expected one of 1, 2, 3, 5, 6, fineshapes, camvid.*, got '4'",
        ),
        ("1", Sizes(datasets=("coco",)), "--dataset: expected some of voc, cityscapes, ade20k"),
        ("6", Sizes(rows=("dpp",)), "--pooling: expected some of pool1"),
        ("fineshapes", Sizes(networks=("unet_small",)), "network: expected one of vgg16"),
    ],
)
def test_unknown_names_are_refused(name: str, sizes: Sizes, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint):
        run_table(name, Sources(), sizes, tmp_path, Runtime())
