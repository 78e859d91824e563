"""The picture of the simulated days."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.capacity.simulate import Day

__all__ = ["draw"]

COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#999999")


def draw(days: Mapping[str, Day], path: Path) -> None:
    """Replicas over the day, and the burst close up: replicas, wait and refusals."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(11, 7.5), sharex="col", layout="constrained")
    burst = slice(int(13.9 * 3600), int(14.7 * 3600))
    for column, part in enumerate((slice(None, None, 60), burst)):
        traffic, replicas, trouble = axes[:, column]
        arrived = next(iter(days.values())).arrived[part]
        hours = [second / 3600 for second in range(86_400)[part]]
        traffic.fill_between(hours, arrived, color="#cccccc")
        traffic.set_ylabel("images/s")
        for order, ((name, day), colour) in enumerate(zip(days.items(), COLOURS, strict=True)):
            style = {"color": colour, "lw": 1.3, "zorder": 9 - order}  # the first one on top
            replicas.plot(hours, day.replicas[part], label=name, **style)
            trouble.plot(hours, day.wait_seconds[part], **style)
        replicas.set_ylabel("replicas")
        trouble.set_ylabel("wait for a worker, s")
        trouble.set_xlabel("hour of the day")
        for axis in axes[:, column]:
            axis.margins(x=0)
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_title("a day")
    axes[0, 1].set_title("its burst")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
