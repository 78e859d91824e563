"""The figures on the capacity page are those of the stored measurements."""

import json
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from benchmarks.capacity.__main__ import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "capacity.md").read_text()


def results(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())["results"]
    return found


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip(" ─")]


def test_every_command_prints_what_the_page_shows() -> None:
    shown = re.findall(r"^\$ python -m benchmarks\.capacity (.*)\n((?:.+\n)+?)```", PAGE, re.M)
    assert [command.split()[0] for command, _ in shown] == ["plan", "ceilings", "archive"]
    for command, output in shown:
        printed = CliRunner().invoke(cli, command.split(), env={"COLUMNS": "100"})
        assert printed.exit_code == 0, printed.output
        assert squeezed(printed.output) == squeezed(output)


def test_the_tables_are_those_of_the_results() -> None:
    assert f"**{results('capacity')['cpu_seconds'] * 1e3:.0f} ms of CPU time**" in PAGE
    cpu, words = results("cluster")["cpu_seconds"], " ".join(PAGE.split())
    plain, ray = (f"{cpu[engine] * 1e3:.0f} ms" for engine in ("plain", "ray"))
    least, middle, most = (f"{ratio:.2f}" for ratio in cpu["ratio"])
    assert f"takes {plain} of CPU time with the plain command and {ray} on Ray" in words
    assert f"**{middle} times** as much, from {least} to {most}" in words
    for row in results("autoscaling").values():
        cells = (
            f"{row['refused, %']:g} %" if row["refused, %"] else "0",
            f"{row['p99.9 wait, s']:.1f} s" if row["p99.9 wait, s"] else "0 s",
            f"{row['replica hours']}",
            f"{row['changes']:,}",
        )
        assert f"| {' | '.join(cells)} |" in PAGE
