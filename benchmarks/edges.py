"""What a photo costs outside the network: decoding and encoding, beside other ways to do it.

Usage: python -m benchmarks.edges
"""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable
from typing import Annotated, Any

import cv2
import numpy as np
import simplejpeg
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.measure import contest, write
from ppool.metadata import InputPolicy
from ppool.runtime import make_session
from ppool.service.codecs.header import ImageLimits
from ppool.service.codecs.images import decode
from ppool.service.codecs.png import png
from ppool.service.models import shipped_model

Contestant = Callable[[], Any]

LIMITS = ImageLimits(max_pixels=64_000_000, max_side_pixels=20_000, max_frames=1)
PALETTE = bytes(range(24))
OURS = "service"


def decoders(width: int, height: int, policy: InputPolicy) -> dict[str, Contestant]:
    """Ways from a JPEG file to an array of the size the network takes."""
    photo = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    photo = photo.resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90)
    content = file.getvalue()
    size = policy.reduced(height, width)[::-1]

    def pillow(*, draft: bool) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if draft:
                image.draft(None, size)
            image.load()
            if image.size == size:
                return np.asarray(image)
            return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))

    def opencv() -> NDArray[Any]:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        pixels: NDArray[Any] = found  # type: ignore[assignment]
        if pixels.shape[1::-1] == size:
            return pixels
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    def plain_simplejpeg() -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB")
        if pixels.shape[1::-1] == size:
            return pixels
        image = Image.fromarray(pixels)
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))

    return {
        OURS: lambda: decode(content, LIMITS, policy).image,
        "Pillow": lambda: pillow(draft=False),
        "Pillow, draft": lambda: pillow(draft=True),
        "simplejpeg, resized by Pillow": plain_simplejpeg,
        "OpenCV": opencv,
    }


def encoders(mask: NDArray[np.uint8]) -> dict[str, Contestant]:
    """Ways from a mask to an indexed PNG file."""

    def pillow(**options: Any) -> bytes:
        image, file = Image.fromarray(mask), io.BytesIO()
        image.putpalette(PALETTE)
        image.save(file, "PNG", **options)
        return file.getvalue()

    return {
        OURS: lambda: png(mask, PALETTE),
        "Pillow, level 1, runs": lambda: pillow(compress_level=1, compress_type=zlib.Z_RLE),
        "Pillow, level 1": lambda: pillow(compress_level=1),
        "Pillow, default": pillow,
        "OpenCV, level 1": lambda: cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1],
    }


def main(rounds: Annotated[int, typer.Option(min=2, help="Timed runs of each way.")] = 40) -> None:
    """Time decoding and encoding on one thread; write ``results/edges.json``."""
    cv2.setNumThreads(1)
    picture = Image.fromarray(data.page())  # type: ignore[no-untyped-call]
    page = np.asarray(picture.convert("RGB").resize((640, 480)))
    (mask,) = make_session(shipped_model()).run(["mask"], {"image": page[None]})
    stages = {
        "decode 640x480 as it is": decoders(640, 480, InputPolicy(1024, 32)),
        "decode 640x480 to 512x512": decoders(640, 480, InputPolicy.fixed(512, 512)),
        "decode 640x480 to 256x256": decoders(640, 480, InputPolicy.fixed(256, 256)),
        "decode 4000x3000 to 1024x768": decoders(4000, 3000, InputPolicy(1024, 32)),
        "encode a 640x480 mask": encoders(mask[0]),
    }
    grid = Table("stage", "way", "CPU ms", "quartiles", "of ours", "bytes")
    rows = []
    for stage, ways in stages.items():
        ratios = [(way, OURS) for way in ways]
        found = contest(ways, ratios, rounds=rounds, clock=time.thread_time)
        for way, timing in found["milliseconds"].items():
            ratio = found["ratios"][f"{way} / {OURS}"]["median"]
            size = len(ways[way]()) if "encode" in stage else None
            row = {"stage": stage, "way": way, "milliseconds": timing, "of_ours": ratio}
            rows.append(row | ({} if size is None else {"bytes": size}))
            low, high = timing["quartiles"]
            cells = (f"{timing['median']:.2f}", f"{low:.2f}-{high:.2f}", f"{ratio:.2f}")
            grid.add_row(stage, way, *cells, str(size or ""))
    console = Console()
    console.print(grid)
    command = f"python -m benchmarks.edges --rounds {rounds}"
    console.print(f"wrote {write('edges', command, rows)}")


if __name__ == "__main__":
    typer.run(main)
