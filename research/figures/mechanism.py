"""What poolings do in trained networks, as one figure: zeros, results, alpha, swaps, shifts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.figures.style import INK, SEVERAL, WIDTH, paper, save

__all__ = ["draw_mechanism"]

Networks = Mapping[str, Mapping[str, Any]]

_OF_STAGES = {
    "elements that weigh nothing, %": lambda stage: 100 * stage["zeros"],
    "from average (0) to maximum (1)": lambda stage: stage["position"],
    "mean IoU as max pooling, points": lambda stage: 100 * stage["as_max"],
}


def draw_mechanism(measured: Path, folder: Path) -> list[Path]:
    """Draw what ``python -m research mechanism`` measured and return the figure's files.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    try:
        found: dict[str, Any] = json.loads(measured.read_text("utf-8"))["networks"]
        networks = {Path(path).parent.name: network for path, network in found.items()}
        with paper():
            figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
            panels: list[Axes] = list(figure.subplots(2, 3).flat)
            for axes, (title, of) in zip(panels, _OF_STAGES.items(), strict=False):
                _bars(axes, title, networks, of)
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=len(networks))
            _alphas(panels[3], networks)
            _gradients(panels[4], networks)
            _shifts(panels[5], networks)
            return save(figure, folder, "mechanism")
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{measured}: expected what `python -m research mechanism` wrote"
        ) from error


def _bars(
    axes: Axes, title: str, networks: Networks, of: Callable[[Mapping[str, Any]], float]
) -> None:
    """A group of bars for every stage, one for each network."""
    width = 0.8 / len(networks)
    for index, (name, network) in enumerate(networks.items()):
        stages: Mapping[str, Any] = network["stages"]
        places = [i + (index - (len(networks) - 1) / 2) * width for i in range(len(stages))]
        heights = [of(stage) for stage in stages.values()]
        axes.bar(places, heights, width, label=name, color=SEVERAL[index % len(SEVERAL)])
        _name_stages(axes, list(stages))
    axes.set_title(title)


def _name_stages(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)


def _with_alpha(networks: Networks) -> dict[tuple[int, str], Mapping[str, Any]]:
    """The stages that have an alpha, by the number of their network and name."""
    return {
        (index, name): stage
        for index, network in enumerate(networks.values())
        for name, stage in network["stages"].items()
        if stage["alpha"] is not None
    }


def _alphas(axes: Axes, networks: Networks) -> None:
    """Quantiles of alpha: 5 to 95 % as a line, 25 to 75 % as a bar, the median as a dot."""
    found = _with_alpha(networks)
    for place, ((index, _), stage) in enumerate(found.items()):
        colour, (least, low, middle, high, most) = SEVERAL[index % len(SEVERAL)], stage["alpha"]
        axes.plot([place, place], [least, most], color=colour, linewidth=0.8)
        axes.plot([place, place], [low, high], color=colour, linewidth=4)
        axes.plot(place, middle, "o", color="white", markersize=2.5)
    _name_stages(axes, [name for _, name in found])
    axes.set_title("alpha: 5, 25, 50, 75 and 95 %")


def _gradients(axes: Axes, networks: Networks) -> None:
    """What doubling alpha moves, and the gradient that the branch's bias gets."""
    found = _with_alpha(networks)
    sizes = [stage["bias_gradient"] for stage in found.values()]
    axes.bar(range(len(found)), [stage["doubling"] for stage in found.values()], 0.6, color=INK)
    for place, ((_, _), stage) in enumerate(found.items()):
        axes.annotate(
            f"{sizes[place]:.0e}", (place, stage["doubling"]), ha="center", va="bottom", fontsize=6
        )
    axes.margins(y=0.15)
    _name_stages(axes, [name for _, name in found])
    axes.set_title("way moved as alpha doubles; bias gradient")


def _shifts(axes: Axes, networks: Networks) -> None:
    for index, network in enumerate(networks.values()):
        kept = {int(shift): 100 * share for shift, share in network["consistency"].items()}
        axes.plot(list(kept), list(kept.values()), ".-", color=SEVERAL[index % len(SEVERAL)])
    axes.set_title("labels kept as the photograph moves, %")
    axes.set_xlabel("pixels")
