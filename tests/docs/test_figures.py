"""Figures in the documentation are those of the result files beside the benchmarks."""

from pathlib import Path

from benchmarks import page
from benchmarks.serving import page as serving_page

ROOT = Path(__file__).parents[2]


def test_the_pages_of_benchmarks_are_what_the_results_give() -> None:
    assert page.PAGE.read_text("utf-8") == page.render(page.stored())
    assert serving_page.PAGE.read_text("utf-8") == serving_page.render(serving_page.stored())


def test_the_readme_quotes_the_kernels_results() -> None:
    rows = "\n".join(page.pooling_rows(page.stored()["kernels"]))
    assert f"\n\n{rows}\n\n" in (ROOT / "README.md").read_text("utf-8")
