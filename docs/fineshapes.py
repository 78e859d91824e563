"""Draw the picture of research/README.md: a few FineShapes scenes, their labels, the legend.

Usage: python docs/fineshapes.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import patches
from matplotlib import pyplot as plt

from research.fineshapes import FINE_SHAPES_CLASSES, FineShapes

mpl.use("Agg")

PATH = Path(__file__).parent / "images" / "fineshapes.png"


def main() -> None:
    """Scenes 1000 to 1003, each above its mask."""
    scenes = FineShapes(4, seed=1000, height=200, width=280)
    colors = np.asarray([entry.rgb for entry in FINE_SHAPES_CLASSES], np.uint8)
    figure, axes = plt.subplots(2, len(scenes), figsize=(12, 4.8), layout="constrained")
    for index, (upper, lower) in enumerate(axes.T):
        scene = scenes[index]
        upper.imshow(scene.image)
        lower.imshow(colors[scene.mask], interpolation="nearest")
        upper.axis("off")
        lower.axis("off")
    handles = [patches.Patch(color=entry.color, label=entry.name) for entry in FINE_SHAPES_CLASSES]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(PATH, dpi=110)


if __name__ == "__main__":
    main()
