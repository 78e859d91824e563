"""Areas of a photo as label tools write them: corners, boxes, ellipses and run lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

__all__ = [
    "Area",
    "brush",
    "coco_runs",
    "cvat_runs",
    "ellipse",
    "polygons",
    "rectangle",
    "size_mismatch",
]

Plane = NDArray[np.bool_]
Area = Callable[[tuple[int, int]], Plane]
"""From a photo's height and width to which of its pixels belong, bool [H, W].

Raises:
    ValueError: if it was drawn on a photo of another size.
"""

# A round shape's corners are less than a pixel from its outline up to 8,000 pixels of radius.
CORNERS = 400


def size_mismatch(drawn: tuple[int, int], photo: tuple[int, int]) -> None:
    """Compare the size that an area was drawn at with the photo's, both (height, width).

    Raises:
        ValueError: if they differ.
    """
    if drawn != photo:
        turned = "; the photo's EXIF turns it" if drawn == photo[::-1] else ""
        raise ValueError(
            f"annotations of {drawn[1]} x {drawn[0]} pixels for a photo of {photo[1]} x {photo[0]}"
            f"{turned}; put the photos there that were annotated"
        )


def polygons(rings: Sequence[NDArray[np.float64]], size: tuple[int, int] | None = None) -> Area:
    """The union of some polygons: pixels whose centre is inside one.

    Shape:
        Each ring is [N, 2], x and y of its corners; (0, 0) is a corner of the first pixel.

    Args:
        rings: The polygons.
        size: Height and width of the photo that they were drawn on, if that is known.
    """

    def painted(shape: tuple[int, int]) -> Plane:
        size_mismatch(size or shape, shape)
        plane = np.zeros(shape, bool)
        for ring in rings:
            inside = polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, shape)  # type: ignore[no-untyped-call]
            plane[inside] = True
        return plane

    return painted


def rectangle(
    at: tuple[float, float],
    sides: tuple[float, float],
    degrees: float,
    *,
    about_corner: bool = False,
    size: tuple[int, int] | None = None,
) -> Area:
    """A box of some width and height, turned clockwise about its middle or its first corner."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float) * sides
    middle = (0.0, 0.0) if about_corner else np.divide(sides, 2)
    return polygons([_turned(corners - middle, degrees) + np.add(at, middle)], size)


def ellipse(
    at: tuple[float, float],
    radii: tuple[float, float],
    degrees: float,
    *,
    size: tuple[int, int] | None = None,
) -> Area:
    """An ellipse about a point, turned clockwise."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    corners = np.column_stack((np.cos(angles), np.sin(angles))) * radii
    return polygons([_turned(corners, degrees) + at], size)


def _turned(corners: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: NDArray[np.float64] = corners @ np.array([(cosine, sine), (-sine, cosine)])
    return turned


def coco_runs(counts: Sequence[int] | str, size: tuple[int, int]) -> Area:
    """COCO's run lengths, column by column, zeros first, as numbers or as its string."""
    runs = _numbers_of(counts) if isinstance(counts, str) else [int(count) for count in counts]
    plane = _spread(runs, size[0] * size[1]).reshape(size[::-1]).T

    def painted(shape: tuple[int, int]) -> Plane:
        size_mismatch(size, shape)
        return plane

    return painted


def _numbers_of(text: str) -> list[int]:
    """COCO's string: 5 bits a character, and from the fourth on differences to two before.

    Source: ``rleFrString`` of cocoapi.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text.encode("ascii"):
        part = character - 48
        if not 0 <= part < 64:
            raise ValueError(f"no run lengths: {text[:20]!r}")
        value |= (part & 0x1F) << bits
        bits += 5
        if part & 0x20:
            continue
        if part & 0x10:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    return runs


def cvat_runs(runs: Sequence[int], box: Sequence[int]) -> Area:
    """CVAT's run lengths, row by row, zeros first, in a box of left, top, width and height."""
    left, top, width, height = box
    plane = _spread(runs, width * height).reshape(height, width)

    def painted(shape: tuple[int, int]) -> Plane:
        if left < 0 or top < 0 or top + height > shape[0] or left + width > shape[1]:
            raise ValueError(
                f"a mask at {left}, {top} of {width} x {height} pixels on a photo of {shape[1]} x "
                f"{shape[0]}; put the photos there that were annotated"
            )
        whole = np.zeros(shape, bool)
        whole[top : top + height, left : left + width] = plane
        return whole

    return painted


def _spread(runs: Sequence[int], total: int) -> Plane:
    if min(runs, default=0) < 0 or sum(runs) != total:
        raise ValueError(f"run lengths of {sum(runs)} pixels where there are {total}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def brush(packed: Sequence[int], size: tuple[int, int]) -> Area:
    """Label Studio's brush: RGBA, row by row, packed; what is opaque to more than a half counts.

    Source: thi.ng/rle-pack, which the tool uses. 32 bits say how many words follow, 5 how many bits
    a word has, 4 times 4 how long the four kinds of run lengths are; then come runs: one bit
    says whether one word is repeated, two say the kind of the length, and the words follow.
    """
    bits = np.unpackbits(np.array(packed, np.uint8))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("a brush that is cut off")
        number = int("".join(map(str, bits[place : place + count].tolist())), 2)
        place += count
        return number

    total, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    height, width = size
    if total != 4 * height * width or word != 8:
        raise ValueError(f"a brush of {total} values of {word} bits for {width} x {height} pixels")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = read(1)
        end = min(done + read(lengths[read(2)]) + 1, total)
        if repeated:
            values[done:end] = read(word)
        else:
            words = bits[place : place + word * (end - done)]
            if len(words) < word * (end - done):
                raise ValueError("a brush that is cut off")
            values[done:end] = np.packbits(words)
            place += word * (end - done)
        done = end
    plane = values.reshape(height, width, 4)[..., 3] > 127

    def painted(shape: tuple[int, int]) -> Plane:
        size_mismatch(size, shape)
        return plane

    return painted
