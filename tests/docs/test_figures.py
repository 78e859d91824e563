"""Figures in the documentation are those of the result files beside the benchmarks."""

import copy
import json
import re
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.measure import RESULTS
from benchmarks.serving import page as serving_page
from research.experiments import EXPERIMENTS
from research.report import MEASURES, gain, grids

ROOT = Path(__file__).parents[2]


def test_the_pages_of_benchmarks_are_what_the_results_give() -> None:
    assert page.PAGE.read_text("utf-8") == page.render(page.stored())
    assert serving_page.PAGE.read_text("utf-8") == serving_page.render(serving_page.stored())


def test_of_several_processors_the_worst_is_said_first() -> None:
    (name, document), *_ = serving_page.stored()
    slower = copy.deepcopy(document)
    for clients in (8, 32):
        record = slower["results"]["servers"]["ppool"][f"clients_{clients}"]["requests_per_second"]
        record["median"] /= 2
    worst = serving_page.render([(name, slower)])
    both = serving_page.render([(name, document), (name, slower)])
    (said,) = re.findall(r"\nOn the worst of 2 processors: (.*)\n", both)
    assert re.findall(r"[0-9.]+(?= times)", said) == re.findall(r"[0-9.]+(?= times \w)", worst)[:2]


def test_what_is_said_of_other_servers_is_of_the_worst_result() -> None:
    found = [
        re.search(
            r"other: ([\d.]+) times .* at 8 clients, ([\d.]+) times .* at 32 clients\. "
            r"A lone client waits ([\d.]+) times",
            serving_page.render([(name, document)]),
        )
        for name, document in serving_page.stored()
        if name == "tiny-256"
    ]
    eight, many, alone = zip(*(match.groups() for match in found if match), strict=True)
    changes = " ".join((ROOT / "CHANGELOG.md").read_text("utf-8").split())
    assert f"{min(eight)} and {min(many)} times the best other at 8 and 32 clients" in changes
    assert f"a lone client {max(alone)} of its wait" in changes


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


@pytest.mark.parametrize("name", ["camvid", "dibco", "drive", "em"])
def test_the_scores_on_photographs_are_those_of_the_result(name: str) -> None:
    text = (ROOT / "docs" / "photographs.md").read_text("utf-8")
    results = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["results"]
    column, experiment = (name, "squeezenet_fcn"), EXPERIMENTS[name]
    measures = len(experiment.measures)
    *scores, gains = grids(experiment, {column: results["/".join(column)]})[: measures + 1]
    for grid in scores:
        label = grid.title.partition(",")[0]
        assert f"\n| {label} | {' | '.join(cell for _, cell in grid.rows)} |\n" in text
    for label, *cells in gains.rows[-measures:]:
        assert f"\n| {label} | | {' | '.join(cells)} |\n" in text


def test_what_p_pooling_has_over_its_rivals_is_of_the_result() -> None:
    text = (ROOT / "docs" / "photographs.md").read_text("utf-8")
    document = json.loads((RESULTS / "camvid.json").read_text("utf-8"))
    runs = document["results"]["camvid/squeezenet_fcn"]
    pairs = (("ppool", "gated"), ("ppool", "average"), ("max_ppool", "max_twice"))
    for measure in EXPERIMENTS["camvid"].measures:
        cells = [gain("camvid", runs[ours], runs[theirs], measure) for ours, theirs in pairs]
        assert f"\n| {MEASURES[measure]} | {' | '.join(cells)} |\n" in text
