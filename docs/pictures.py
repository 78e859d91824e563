"""Draw the README's picture from a running service: photo, mask, alpha maps.

Usage: make serve, then python docs/pictures.py
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Annotated, Any

import httpx
import matplotlib as mpl
import numpy as np
import typer
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from PIL import Image
from skimage import data

mpl.use("Agg")

IMAGES = Path(__file__).parent / "images"


def segment(url: str, photo: NDArray[np.uint8], **query: str) -> httpx.Response:
    """POST a photo as PNG; any refusal stops the script with the service's own words."""
    body = io.BytesIO()
    Image.fromarray(photo).save(body, "PNG")
    accept = "application/json" if "alpha" in query else "image/png"
    answer = httpx.post(
        f"{url}/segment",
        params=query,
        content=body.getvalue(),
        headers={"content-type": "image/png", "accept": accept},
        timeout=60,
    )
    if answer.is_error:
        raise SystemExit(answer.text)
    return answer


def picture(encoded: bytes) -> NDArray[np.uint8]:
    """Pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def draw(url: str, name: str, path: Path) -> dict[str, Any]:
    """One photo with its mask, legend and alpha maps."""
    photo = getattr(data, name)()
    mask = picture(segment(url, photo).content)
    found: dict[str, Any] = segment(url, photo, alpha="maps").json()["images"][0]
    stages = found["alpha"]

    aspect = photo.shape[0] / photo.shape[1]
    figure = plt.figure(figsize=(10, 7.4 * aspect + 1.7), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.5, 1])
    left, right = top.subplots(1, 2)
    left.imshow(photo, cmap="grey")
    left.set_title("photo")
    right.imshow(mask, interpolation="nearest")
    right.set_title("mask")
    shown = [entry for entry in found["classes"] if entry["fraction"] >= 0.001]
    handles = [plt.Rectangle((0, 0), 1, 1, color=entry["color"]) for entry in shown]
    labels = [f"{entry['name']} {100 * entry['fraction']:.1f} %" for entry in shown]
    top.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    for axes, stage in zip(bottom.subplots(1, len(stages)), stages, strict=True):
        axes.imshow(picture(base64.b64decode(stage["map"])))
        axes.set_title(
            f"{stage['stage']}: {stage['map_min']:.1f} to {stage['map_max']:.1f}", fontsize=10
        )
    bottom.suptitle("alpha, mean over channels (brighter: nearer to max pooling)", fontsize=10)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return found


def main(
    url: Annotated[str, typer.Option(help="A running ppool serve.")] = "http://127.0.0.1:8000",
) -> None:
    """Draw docs/images/page.png."""
    path = IMAGES / "page.png"
    draw(url, "page", path)
    print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
