"""Photograph-like pages that the generator did not draw, and what the shipped model makes of them.

Usage: python docs/lifelike.py    (needs Chromium; writes docs/images/lifelike.jpg)

A browser sets the pages; they are then laid on a table, lit, bent in perspective, blurred and
compressed, with nothing of ``research/pages``. docs/model.md says in words what came out.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.pages import segmenter
from ppool.service.models import shipped_model
from tests.service.chromium import Page, chromium_page

Image = NDArray[np.uint8]

TARGET = Path(__file__).parent / "images" / "lifelike.jpg"
WORDS = (
    "The committee met on Tuesday to consider the report of the surveyor, who had walked the whole "
    "length of the wall in April and found it sound but for two places near the mill. He asks for "
    "lime, sand and eleven days. It was agreed that the work be done before the autumn rains, and "
    "that the miller, whose carts have worn the corner stones, pay a third part of the cost. "
)
ROWS = "".join(
    f"<tr><td>{name}<td style='text-align:right'>{price:.2f}"
    for name, price in (("Bread", 3.2), ("Milk 1 l", 1.15), ("Apples", 2.99), ("Coffee", 6.49))
)
CHART = (
    "<svg width=420 height=220 viewBox='0 0 420 220'><rect width=420 height=220 fill='#dfe8ee'/>"
    + "".join(
        f"<rect x={30 + 75 * i} y={180 - 30 * i} width=50 height={30 * i + 20} fill='#b5533c'/>"
        for i in range(5)
    )
    + "</svg>"
)
STAMP = (
    "<svg width=260 height=110 style='position:absolute;right:70px;bottom:150px;"
    "transform:rotate(-14deg);opacity:.75'><rect x=6 y=6 width=248 height=98 fill=none "
    "stroke='#b01830' stroke-width=7 rx=10 /><text x=130 y=70 font-size=46 font-weight=bold "
    "font-family='Liberation Sans' text-anchor=middle fill='#b01830'>RECEIVED</text></svg>"
)


@dataclass(frozen=True)
class Scene:
    """A page as HTML, and how it is photographed.

    Attributes:
        body: What is on it.
        style: CSS of the page: paper, face, size.
        table: Colour of what it lies on; None is a scan, with nothing around.
        light: Brightness at the far end of the light's fall.
        blur: Standard deviation in pixels.
        quality: Of the JPEG.
        back: Whether the print of the other side shows through.
    """

    body: str
    style: str
    table: tuple[int, int, int] | None = (92, 68, 48)
    light: float = 0.75
    blur: float = 0.6
    quality: int = 85
    back: bool = False


SERIF = "font:27px/1.45 'Liberation Serif';color:#1d1a18;"
HAND = "font:46px/1.5 'Dancing Script',cursive;color:#24357c;"
SCENES: Mapping[str, Scene] = {
    "letter": Scene(f"<p>Dear Sir,<p>{WORDS * 2}<p>Yours,", SERIF + "background:#fbfaf5"),
    "article": Scene(
        f"<h1>Walls that last</h1><div style='columns:2'>{WORDS * 2}{CHART}<p>{WORDS}</div>",
        SERIF + "background:#fff;font-size:21px", light=0.55,
    ),
    "receipt": Scene(
        f"<center><h2>MARKET HALL</h2>12 Mill Lane</center><hr><table width=100%>{ROWS}</table><hr>"
        "<b>TOTAL 13.83</b><p>28.11.2026 07:41<br>THANK YOU",
        "font:38px/1.4 'DejaVu Sans Mono';background:#f4f4f2;color:#4a4a4c;padding:60px 180px",
        table=(60, 62, 66),
    ),
    "letter by hand": Scene(f"<p>Dear Ada,<p>{WORDS}<p>Yours, M.", HAND + "background:#f6f0dd"),
    "notebook": Scene(
        WORDS, HAND + "line-height:64px;background:repeating-linear-gradient(#fdfdf8 0 62px,"
        "#9db4d6 62px 64px);padding-top:14px", table=(150, 150, 146),
    ),
    "form": Scene(
        "<h2>APPLICATION</h2>" + "".join(
            f"<p>{label}: <span style=\"display:inline-block;width:560px;border-bottom:2px solid;"
            f"{HAND}\">{filled}</span>"
            for label, filled in (("Name", "Ada Miller"), ("Street", "Mill Lane 12"),
                                  ("Town", "Oldbury"), ("Reason", "the wall is broken"))
        ) + STAMP, SERIF + "background:#fff", table=(196, 170, 130),
    ),
    "old print": Scene(
        f"<h1>Of Walls</h1>{WORDS * 2}",
        "font:32px/1.3 'IM Fell English','Old Standard',serif;color:#3b2c20;background:#d9c293",
        table=None, blur=0.9, back=True,
    ),
    "slide": Scene(
        f"<h1>Three reasons</h1><ul><li>Lime<li>Sand<li>Eleven days</ul>{CHART}",
        "font:44px 'DejaVu Sans';color:#f0f0f0;background:#1e2430", table=None, light=1.0,
    ),
    "newspaper": Scene(
        f"<h1 style='font-size:74px;text-align:center;margin:0'>THE OLDBURY TIMES</h1><hr>"
        f"<div style='columns:3'>{WORDS * 5}</div>",
        SERIF + "font-size:19px;background:#d8d4c8", light=0.5, quality=45,
    ),
    "photocopy": Scene(f"<h2>Minutes</h2>{WORDS * 3}", SERIF + "background:#fff", table=None,
                       blur=1.3, quality=35),
}  # fmt: skip


def rendered(browser: Page, body: str, style: str) -> Image:
    """The page as a browser sets it, RGB."""
    html = (
        f"<meta charset=utf-8><style>html{{height:100%}}body{{margin:0;padding:70px;height:100%;"
        f"box-sizing:border-box;{style}}}h1,h2{{margin:.2em 0}}</style><body>{body}"
    )
    address = "data:text/html;base64," + base64.b64encode(html.encode()).decode()
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=1000, height=1300, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    browser.open(address)
    shot = browser.call("Page.captureScreenshot", format="png")
    png = np.frombuffer(base64.b64decode(shot["data"]), np.uint8)
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), np.uint8)


def photographed(scene: Scene, page: Image, back: Image | None, rng: np.random.Generator) -> Image:
    """The page as a camera or a scanner sees it, RGB."""
    height, width = page.shape[:2]
    sheet = page.astype(np.float32) / 255
    if back is not None:
        ghost = cv2.GaussianBlur(back[:, ::-1].astype(np.float32) / 255, (0, 0), 2.0)
        sheet *= 1 - 0.45 * (ghost.max() - ghost)
    if scene.table is not None:
        size = (1200, 1560)
        grain = cv2.GaussianBlur(
            rng.normal(0, 1, (size[1], size[0])).astype(np.float32), (41, 3), 0
        )
        wood = np.asarray(scene.table, np.float32) / 255 * (1 + 0.5 * grain[..., None])
        corners = np.asarray([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        places = corners + np.asarray((100, 130)) + rng.normal(0, 28, (4, 2))
        matrix = cv2.getPerspectiveTransform(corners, places.astype(np.float32))
        there = cv2.warpPerspective(np.ones((height, width), np.float32), matrix, size)
        shade = 1 - 0.5 * cv2.GaussianBlur(np.roll(there, (14, 10), (0, 1)), (0, 0), 12)
        moved = cv2.warpPerspective(sheet, matrix, size, flags=cv2.INTER_AREA)
        sheet = moved + (1 - there[..., None]) * (wood * shade[..., None])
    fall = np.linspace(1, scene.light, sheet.shape[1], dtype=np.float32)[None, :, None]
    seen = cv2.GaussianBlur(sheet * fall, (0, 0), scene.blur)
    noisy = 255 * seen + rng.normal(0, 3, seen.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def main(
    model: Annotated[Path | None, typer.Option(help="Default: the model that ships.")] = None,
    target: Annotated[Path, typer.Option(help="The picture.")] = TARGET,
) -> None:
    """Make the pages, segment them, and write the picture."""
    segment, classes = segmenter(model or shipped_model())
    palette = np.asarray([label.rgb for label in classes], np.uint8)
    tiles = []
    with tempfile.TemporaryDirectory() as profile, chromium_page(Path(profile)) as browser:
        for number, scene in enumerate(SCENES.values()):
            page = rendered(browser, scene.body, scene.style)
            back = rendered(browser, WORDS[50:] * 2, scene.style) if scene.back else None
            photo = photographed(scene, page, back, np.random.default_rng(number))
            options = [cv2.IMWRITE_JPEG_QUALITY, scene.quality]
            file = cv2.imencode(".jpg", photo[..., ::-1], options)[1].tobytes()
            pair = np.hstack([photo, palette[segment(file)]])
            tiles.append(cv2.resize(pair, (800, 520), interpolation=cv2.INTER_AREA))
    rows = [np.hstack(tiles[first : first + 2]) for first in range(0, len(tiles), 2)]
    cv2.imwrite(str(target), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    print(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
