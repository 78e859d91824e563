"""Draw the dashboard's queries with the data of a real Prometheus: docs/images/dashboard.png.

Starts the service and Prometheus, loads it lightly, then beyond what it can do, then lightly again.

Usage: python docs/dashboard.py    (needs the program `prometheus`)
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.load import load
from benchmarks.running import MONITORING, ROOT, Prometheus, prometheus, service

mpl.use("Agg")

PHOTO = ROOT / "ppool" / "service" / "playground" / "desk.jpg"
PICTURE = ROOT / "docs" / "images" / "dashboard.png"
PHASES = ((2, 30.0), (24, 40.0), (2, 30.0))  # clients and seconds
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
UNITS = {"bytes": "MiB", "percentunit": "share", "reqps": "1/s", "short": ""}
WRITTEN = {"s": "{:.2f} s", "percentunit": "{:.1%}", "reqps": "{:.1f}/s", "short": "{:g}"}


def legend(template: str, labels: dict[str, str]) -> str:
    """Grafana's ``{{label}}`` filled in."""
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def draw_panel(axes: Axes, panel: dict[str, Any], server: Prometheus, start: float) -> None:
    """One panel from its own queries; a stat shows its value at the height of the load."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=9, loc="left")
    drawn = 0
    for target in panel["targets"]:
        query = {
            "query": target["expr"].replace("$__rate_interval", "10s"),
            "start": f"{start}",
            "end": f"{time.time()}",
            "step": "1",
        }
        for series in server.ask("query_range", query)["result"]:
            times = [float(when) - start for when, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            if unit == "bytes":
                values = [value / 2**20 for value in values]
            label = legend(target["legendFormat"], series["metric"])
            axes.plot(times, values, color=COLOURS[drawn % len(COLOURS)], lw=1.1, label=label)
            drawn += 1
            if panel["type"] == "stat":
                height = sum(seconds for _, seconds in PHASES[:2])
                axes.text(0.5, 0.4, WRITTEN[unit].format(values[min(int(height), len(values)) - 1]),
                          ha="center", fontsize=15, transform=axes.transAxes)  # fmt: skip
    if panel["type"] == "stat":
        for line in axes.lines:
            line.set_alpha(0.25)
        axes.set_axis_off()
        return
    axes.set_ylabel(
        {"bytes": "MiB", "percentunit": "share", "reqps": "1/s"}.get(unit, unit), fontsize=7
    )
    axes.tick_params(labelsize=7)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-3) * 1.3)  # the legend stands above the lines
    axes.set_xlim(0, time.time() - start)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=2)


def write_table(axes: Axes, panel: dict[str, Any], server: Prometheus) -> None:
    """The labels of an instant query."""
    axes.set_title(panel["title"], fontsize=9, loc="left")
    axes.set_axis_off()
    for row, series in enumerate(
        server.ask("query", {"query": panel["targets"][0]["expr"]})["result"]
    ):
        labels = ", ".join(f"{name} {value}" for name, value in sorted(series["metric"].items()))
        axes.text(0, 0.8 - 0.15 * row, f"{series['value'][1]} x {labels}", fontsize=8)


def draw(server: Prometheus, start: float) -> None:
    """Every panel where the dashboard has it."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(15, rows * 0.31))
    for panel in panels:
        at = panel["gridPos"]
        # The grid's cell, less a margin for the title and the axis.
        left, width = at["x"] / 24 + 0.032, at["w"] / 24 - 0.045
        bottom, height = 1 - (at["y"] + at["h"] - 1) / rows, (at["h"] - 2.2) / rows
        axes = figure.add_axes((left, bottom, width, height))
        if panel["type"] == "table":
            write_table(axes, panel, server)
        else:
            draw_panel(axes, panel, server, start)
    figure.savefig(PICTURE, dpi=80)


def main() -> None:
    """Run the service under load, ask Prometheus, draw."""
    photo = PHOTO.read_bytes()
    with (
        tempfile.TemporaryDirectory() as folder,
        service("--workers", "2", PPOOL_QUEUE_IMAGES="10") as (_, address),
        prometheus(address, Path(folder), scrape_seconds=1) as server,
    ):
        start = time.time()
        for clients, seconds in PHASES:
            print(asyncio.run(load(address, [photo], clients=clients, seconds=seconds)))
        draw(server, start)
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
