"""Figures in the documentation are those of the result files beside the benchmarks."""

import json
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.measure import RESULTS
from benchmarks.serving import page as serving_page
from research.experiments import EXPERIMENTS
from research.report import grids

ROOT = Path(__file__).parents[2]


def test_the_pages_of_benchmarks_are_what_the_results_give() -> None:
    assert page.PAGE.read_text("utf-8") == page.render(page.stored())
    assert serving_page.PAGE.read_text("utf-8") == serving_page.render(serving_page.stored())


@pytest.mark.parametrize("text", ["README.md", "docs/model.md"])
def test_the_contests_are_those_of_the_result(text: str) -> None:
    results = json.loads((RESULTS / "pages-dibco.json").read_text("utf-8"))["results"]
    heads = ["contest", "Otsu", "Sauvola (25, 0.2)", "model"]
    rows = [
        [f"DIBCO {name.removeprefix('DIBCO')}", *(f"{row[way]:.1f}" for way in row)]
        for name, row in results["contests"].items()
    ]
    *others, model = (f"{score:.1f}" for score in results["mean"].values())
    table = "\n".join(page.table(heads, [*rows, ["**mean**", *others, f"**{model}**"]]))
    assert f"\n\n{table}\n\n" in (ROOT / text).read_text("utf-8")


def test_the_scores_on_photographs_are_those_of_the_result() -> None:
    text = (ROOT / "docs" / "photographs.md").read_text("utf-8")
    results = json.loads((RESULTS / "camvid.json").read_text("utf-8"))["results"]
    column = ("camvid", "squeezenet_fcn")
    *scores, gains = grids(EXPERIMENTS["camvid"], {column: results["/".join(column)]})[:4]
    for grid in scores:
        name = grid.title.partition(",")[0]
        assert f"\n| {name} | {' | '.join(cell for _, cell in grid.rows)} |\n" in text
    for name, *cells in gains.rows[-3:]:
        assert f"\n| {name} | | {' | '.join(cells)} |\n" in text
