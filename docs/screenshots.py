"""Photograph the playground with the shipped model: docs/images/playground-*.png.

Usage: python docs/screenshots.py    (needs Chromium)
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.running import service
from tests.service.chromium import SEGMENTED, Page, chromium_page

IMAGES = Path(__file__).parent / "images"
# Width and height in CSS pixels, and how the visitor likes it.
VIEWS = {
    "light": (1280, 1000, "light"),
    "dark": (1280, 1000, "dark"),
    "phone": (390, 844, "light"),
}


def photograph(page: Page, address: str, name: str) -> None:
    """One sample, segmented, as a visitor of this kind sees it."""
    width, height, scheme = VIEWS[name]
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=name == "phone",
    )  # fmt: skip
    page.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    page.open(f"{address}/?sample=2")
    page.wait_for(SEGMENTED)
    page.run("Promise.all(document.getAnimations().map((fade) => fade.finished)).then(() => 1)")
    shot = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
    path = IMAGES / f"playground-{name}.png"
    picture.convert("RGB").quantize(256).save(path, optimize=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as profile,
        service() as (_, address),
        chromium_page(Path(profile)) as page,
    ):
        for view in ("light", *VIEWS):  # the first time the service is not warm yet
            photograph(page, address, view)
