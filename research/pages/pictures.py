"""Pictures for pages: photographs bundled with packages, drawn scenes, charts and logos."""

from __future__ import annotations

import cv2
import numpy as np

from research.fields import Image, as_image, noise
from research.pages.photos import load_photos
from research.rng import Color, Rng

__all__ = ["chart", "logo", "picture"]


def picture(rng: Rng, height: int, width: int) -> Image:
    """A photograph-like picture, RGB [height, width, 3]."""
    scene = rng.weighted(
        {_photo: 6, _crowd: 4, _street: 3, _landscape: 2, _city: 1, _portrait: 1.5, _bokeh: 1,
         _still: 2}
    )  # fmt: skip
    # Drawn no larger than needed for its detail: the camera blurs it anyway.
    scale = min(1.0, 700 / max(height, width))
    size = (max(8, round(height * scale)), max(8, round(width * scale)))
    image = scene(rng, *size)
    if rng.chance(0.2):
        other = rng.pick((_photo, _landscape, _bokeh))(rng, *size)
        image = _blend(rng, image, other)
    image = _regrade(rng, image)
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
    return image


def _blend(rng: Rng, image: Image, other: Image) -> Image:
    """Two pictures in one, along a soft boundary."""
    height, width = image.shape[:2]
    boundary = noise(rng, height, width, max(height, width) / 2, 3) * rng.between(1, 8)
    share = 1 / (1 + np.exp(-np.clip(boundary, -20, 20)))[..., None]
    return as_image(image * share + other * (1 - share))


def _regrade(rng: Rng, image: Image) -> Image:
    """New colours and tones: grey, toned, hue-turned, lighter or darker."""
    style = rng.weighted({"as is": 4, "grey": 3, "hue": 3, "toned": 1, "halftone": 0.7})
    values = image.astype(np.float32)
    grey = values.mean(2, keepdims=True)
    if style == "grey":
        values = np.repeat(grey, 3, 2)
    elif style == "hue":
        turn = rng.permutation(3)
        values = grey + rng.between(0.3, 1.4) * (values[..., turn] - grey)
    elif style == "toned":
        values = grey / 255 * np.asarray(rng.color(120, 255), np.float32)
    elif style == "halftone":
        rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
        pitch = rng.between(2.5, 5)
        screen = np.cos(2 * np.pi * (rows + columns) / pitch) * np.cos(
            2 * np.pi * (rows - columns) / pitch
        )
        values = np.asarray(values + 60 * screen[..., None], np.float32)
    toned = 255 * np.clip(values / 255, 0, 1) ** rng.log_between(0.5, 2.0)
    return as_image((toned - 128) * rng.between(0.6, 1.25) + 128 + rng.between(-25, 25))


def _photo(rng: Rng, height: int, width: int) -> Image:
    """A crop of a real photograph; a drawn scene where none is installed."""
    scenes = (*load_photos().scenes, *load_photos().textures[:1])
    if not scenes:
        return _landscape(rng, height, width)
    source = rng.pick(scenes)
    share = rng.log_between(0.25, 1.0)
    aspect = height / width
    crop_width = min(source.shape[1], source.shape[0] / aspect) * share
    crop = (max(8, int(crop_width * aspect)), max(8, int(crop_width)))
    top = rng.whole(0, max(0, source.shape[0] - crop[0]))
    left = rng.whole(0, max(0, source.shape[1] - crop[1]))
    part = source[top : top + crop[0], left : left + crop[1]]
    if rng.chance(0.5):
        part = part[:, ::-1]
    if rng.chance(0.1):
        part = part[::-1]
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (width, height)), np.uint8)


def _crowd(rng: Rng, height: int, width: int) -> Image:
    """Photographed things, near and far, before a photograph or a drawn scene."""
    ground = rng.weighted({_photo: 4, _landscape: 2, _street: 2, _bokeh: 1, _city: 1})
    image = ground(rng, height, width)
    for _ in range(rng.whole(2, 14) if load_photos().things else 0):
        _place(rng, image, rng.log_between(0.08, 0.8) * min(height, width))
    return image


def _place(rng: Rng, image: Image, size: float, foot: float | None = None) -> None:
    """Lay a photographed thing on the picture, ``size`` wide or tall, standing at ``foot``."""
    whole = rng.pick(load_photos().things)
    if rng.chance(0.5):
        whole = whole[:, ::-1]
    scale = size / max(whole.shape[:2])
    extent = [max(2, round(side * scale)) for side in whole.shape[1::-1]]
    thing = cv2.resize(np.ascontiguousarray(whole), extent, interpolation=cv2.INTER_AREA)
    left = rng.whole(-extent[0] // 2, image.shape[1] - extent[0] // 2)
    top = rng.whole(-extent[1] // 2, image.shape[0] - extent[1] // 2)
    if foot is not None:
        top = round(foot) - extent[1]
    area = image[max(top, 0) : top + extent[1], max(left, 0) : left + extent[0]]
    shown = thing[max(-top, 0) :, max(-left, 0) :][: area.shape[0], : area.shape[1]]
    share = shown[..., 3:] / np.float32(255)
    light = rng.between(0.5, 1.1)
    area[:] = np.clip(area + share * (light * shown[..., :3].astype(np.float32) - area), 0, 255)


def _street(rng: Rng, height: int, width: int) -> Image:
    """A grey road between houses and trees, wires and posts before a pale sky, in haze."""
    image = _city(rng, height, width).astype(np.float32)
    horizon = rng.between(0.3, 0.6) * height
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    near = np.clip((rows - horizon) / (height - horizon), 0, 1)
    grain = 1 + rng.between(0.02, 0.15) * noise(rng, height, width, 40, 5, 1.5)
    for reach in (rng.between(2, 4), rng.between(0.7, 1.5)):
        middle = width * rng.between(0.3, 0.7)
        edge = (np.abs(columns - middle) < reach * width * near + 2) & (rows > horizon)
        grey = np.asarray(rng.tint((rng.whole(40, 200),) * 3, 8), np.float32)
        image = np.where(edge[..., None], grey * (grain * (0.8 + 0.3 * near))[..., None], image)
    scene = as_image(image)
    for _ in range(rng.whole(0, 6)):
        leaves = noise(rng, height, width, rng.between(6, 30), 4)
        x, y = rng.between(0, width), horizon - rng.between(-0.1, 0.4) * height
        far = np.hypot(columns - x, rows - y) / (rng.between(0.1, 0.4) * height)
        green = np.asarray(rng.tint((60, 80, 45), 30), np.float32)
        lit = green * (1 + 0.5 * leaves)[..., None]
        scene = as_image(np.where((far + 0.4 * leaves < 1)[..., None], lit, scene))
    for _ in range(rng.whole(0, 7)):
        x = rng.whole(0, width)
        color, thick = rng.color(20, 160), max(1, round(rng.log_between(0.003, 0.02) * width))
        if rng.chance(0.6):
            foot = round(horizon + rng.between(0, 0.6) * (height - horizon))
            cv2.line(scene, (x, rng.whole(0, foot)), (x, foot), color, thick, cv2.LINE_AA)
        else:
            ends = rng.whole(0, height // 2), rng.whole(0, height // 2)
            cv2.line(scene, (0, ends[0]), (width, ends[1]), color, 1, cv2.LINE_AA)
    for _ in range(rng.whole(0, 8) if load_photos().things else 0):
        depth = rng.between(0.03, 0.9)
        _place(rng, scene, (0.1 + 0.5 * depth) * height, horizon + depth * (height - horizon))
    haze = rng.between(0, 0.6) * np.exp(-3 * near)[..., None]
    pale = np.asarray(rng.color(150, 255), np.float32)
    return as_image(scene + haze * (pale - scene))


def _sky(rng: Rng, height: int, width: int) -> np.ndarray:
    upper, lower = (np.asarray(rng.color(60, 255), np.float32) for _ in range(2))
    fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(upper + (lower - upper) * fall, (height, width, 3)).copy()
    clouds = np.clip(noise(rng, height, width, width / 3, 5, 2.0), 0, None)[..., None]
    return np.asarray(sky + rng.between(0, 60) * clouds)


def _landscape(rng: Rng, height: int, width: int) -> Image:
    """Ridges of hills under a sky, textured with fractal noise."""
    image = _sky(rng, height, width)
    rows = np.arange(height)[:, None]
    base = rng.between(0.3, 0.6) * height
    for depth in range(rng.whole(1, 4)):
        ridge = base + noise(rng, 2, width, width / (2 + depth), 5)[0] * height * 0.07
        color = np.asarray(rng.color(20, 190), np.float32)
        ground = color * (1 + 0.25 * noise(rng, height, width, 60, 6, 1.5)[..., None])
        image = np.where((rows > ridge)[..., None], ground, image)
        base += rng.between(0.08, 0.25) * height
    return as_image(image)


def _city(rng: Rng, height: int, width: int) -> Image:
    """Blocks with rows of windows before a sky."""
    image = as_image(_sky(rng, height, width))
    for _ in range(rng.whole(3, 12)):
        wide, tall = rng.between(0.08, 0.4) * width, rng.between(0.2, 0.9) * height
        left, top = rng.between(-0.1, 0.95) * width, height - tall
        color = rng.color(30, 200)
        cv2.rectangle(image, (int(left), int(top)), (int(left + wide), height), color, -1)
        step = max(4, int(wide / rng.whole(3, 9)))
        lit = rng.color(30, 240)
        for y in range(int(top) + step // 2, height, int(step * 1.3)):
            for x in range(int(left) + step // 3, int(left + wide) - step // 2, step):
                cv2.rectangle(image, (x, y), (x + step // 2, y + step * 2 // 3), lit, -1)
    grain = rng.between(2, 14) * noise(rng, height, width, 30, 4)
    return as_image(image + grain[..., None])


def _portrait(rng: Rng, height: int, width: int) -> Image:
    """Head and shoulders in soft shapes before a blurred background."""
    image = as_image(_bokeh(rng, height, width))
    scale = min(height, width) * rng.between(0.2, 0.34)
    x, y = int(width * rng.between(0.35, 0.65)), int(height * rng.between(0.35, 0.5))
    skin = rng.tint(rng.pick(((224, 178, 150), (196, 142, 108), (132, 88, 64), (86, 58, 44))), 12)
    hair, clothes = rng.color(10, 120), rng.color(10, 240)
    dark: Color = (skin[0] // 2, skin[1] // 2, skin[2] // 2)

    def blob(dx: float, dy: float, rx: float, ry: float, color: Color) -> None:
        centre, axes = (
            (int(x + dx * scale), int(y + dy * scale)),
            (int(rx * scale), int(ry * scale)),
        )
        cv2.ellipse(image, centre, axes, rng.between(-8, 8), 0, 360, color, -1, cv2.LINE_AA)

    blob(0, 2.9, 1.9, 1.6, clothes)
    blob(0, -0.25, 0.95, 1.15, hair)
    blob(0, 1.1, 0.38, 0.6, skin)
    blob(0, 0, 0.75, 1.0, skin)
    for side in (-1, 1):
        blob(0.3 * side, -0.12, 0.13, 0.06, (240, 240, 240))
        blob(0.3 * side, -0.12, 0.06, 0.06, (30, 24, 20))
        blob(0.3 * side, -0.32, 0.2, 0.04, hair)
    blob(0, 0.2, 0.08, 0.16, dark)
    blob(0, 0.55, 0.26, 0.07, (160, 70, 70))
    softened = cv2.GaussianBlur(image, (0, 0), max(0.8, scale / 40))
    light = 1 + 0.25 * noise(rng, height, width, 1.5 * scale, 2)
    fine = 1 + 0.04 * noise(rng, height, width, 8, 3)
    return as_image(softened * (light * fine)[..., None])


def _bokeh(rng: Rng, height: int, width: int) -> Image:
    """Out-of-focus lights on a soft ground."""
    fields = [noise(rng, height, width, rng.between(60, 300), 2) for _ in range(3)]
    ground = np.asarray(rng.color(10, 200)) + rng.between(10, 50) * np.stack(fields, 2)
    image = as_image(ground)
    for _ in range(rng.whole(0, 30)):
        layer = image.copy()
        centre = (rng.whole(0, width), rng.whole(0, height))
        cv2.circle(layer, centre, rng.whole(3, 40), rng.color(60, 255), -1, cv2.LINE_AA)
        image = np.asarray(cv2.addWeighted(layer, 0.5, image, 0.5, 0), np.uint8)
    return image


def _still(rng: Rng, height: int, width: int) -> Image:
    """Shaded balls, boxes and leaves on a table: hard edges, highlights and cast shadows."""
    image = as_image(_landscape(rng, height, width) if rng.chance(0.3) else
                     _bokeh(rng, height, width))  # fmt: skip
    side = min(height, width)
    for _ in range(rng.whole(3, 16)):
        x, y = rng.whole(0, width), rng.whole(0, height)
        radius = max(3, int(rng.log_between(0.04, 0.4) * side))
        color = np.asarray(rng.color(20, 240), np.float32)
        shape = np.zeros((height, width), np.uint8)
        if rng.chance(0.5):
            axes = (radius, max(2, int(radius * rng.between(0.3, 1))))
            cv2.ellipse(shape, (x, y), axes, rng.between(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
        else:
            corners = np.asarray((x, y)) + rng.normal(0, radius, (rng.whole(3, 6), 2))
            cv2.fillConvexPoly(shape, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)
        rows, columns = np.ogrid[:height, :width]
        lit = 1.1 - np.hypot(rows - y + 0.4 * radius, columns - x + 0.4 * radius) / (2.5 * radius)
        share = shape[..., None] / np.float32(255)
        cast = np.roll(shape, radius // 4, (0, 1))
        shadow = np.asarray(cv2.GaussianBlur(cast, (0, 0), radius / 4))
        image = as_image(image * (1 - 0.4 * shadow[..., None] / 255))
        body = color * np.clip(lit, 0.2, 1.3)[..., None]
        image = as_image(image * (1 - share) + share * body)
    return as_image(image * (1 + 0.05 * noise(rng, height, width, 20, 4))[..., None])


def chart(rng: Rng, height: int, width: int) -> Image:
    """A bar, line, pie or scatter chart on a panel of its own; all of it counts as picture."""
    ground = rng.color(225, 255) if rng.chance(0.5) else rng.color(30, 225)
    image = np.full((height, width, 3), ground, np.uint8)
    pen = max(1, min(height, width) // 150)
    left, bottom = width // 8, height - height // 8
    count = rng.whole(4, 14)
    xs = np.linspace(left + width / 16, width * 0.95, count)
    values = np.abs(np.cumsum(rng.normal(0, 1, count))) + 0.3
    ys = bottom - values / values.max() * (bottom - height / 10)
    kind = rng.pick(("bars", "lines", "pie", "dots"))
    if kind == "pie":
        angle, radius = 0.0, int(min(height, width) * 0.4)
        for share in rng.dirichlet(np.ones(rng.whole(3, 7))) * 360:
            centre, end = (width // 2, height // 2), angle + float(share)
            color = rng.color(30, 240)
            cv2.ellipse(image, centre, (radius, radius), 0, angle, end, color, -1, cv2.LINE_AA)
            angle = end
        return image
    if rng.chance(0.6):
        for y in np.linspace(height / 10, bottom, rng.whole(3, 7)).astype(int):
            cv2.line(image, (left, int(y)), (width, int(y)), (190, 190, 190), pen)
    for _ in range(rng.weighted({1: 3, 2: 1, 3: 1})):
        color = rng.color(10, 220)
        points = np.column_stack([xs, ys]).astype(np.int32)
        if kind == "bars":
            half = int(width / count / 3)
            for x, y in points:
                cv2.rectangle(image, (int(x) - half, int(y)), (int(x) + half, bottom), color, -1)
        elif kind == "lines":
            cv2.polylines(image, [points], False, color, 2 * pen, cv2.LINE_AA)
        else:
            for x, y in points:
                cv2.circle(image, (int(x), int(y)), 3 * pen, color, -1, cv2.LINE_AA)
        ys = np.clip(ys + rng.normal(0, height / 8, count), height / 10, bottom)
    if rng.chance(0.4):
        return image
    cv2.line(image, (left, height // 12), (left, bottom), (20, 20, 20), pen)
    cv2.line(image, (left, bottom), (width, bottom), (20, 20, 20), pen)
    scale = max(0.25, height / 700)
    for y in np.linspace(height / 9, bottom, 4).astype(int):
        label, spot = str(rng.whole(1, 90)), (width // 40, int(y))
        cv2.putText(
            image, label, spot, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), pen, cv2.LINE_AA
        )
    return image


def logo(rng: Rng, side: int) -> Image:
    """A compact emblem of two or three plain shapes, RGB [side, side, 3]."""
    image = np.full((side, side, 3), rng.color(235, 255), np.uint8)
    half = side // 2
    for _ in range(rng.whole(2, 4)):
        color, radius = rng.color(0, 220), rng.whole(max(2, side // 6), max(3, side * 9 // 20))
        shape = rng.pick(("disc", "ring", "polygon"))
        if shape == "polygon":
            turns = np.linspace(0, 2 * np.pi, rng.whole(3, 8), endpoint=False) + rng.between(0, 6)
            corners = half + radius * np.column_stack([np.cos(turns), np.sin(turns)])
            cv2.fillConvexPoly(image, corners.astype(np.int32), color, cv2.LINE_AA)
        else:
            thickness = -1 if shape == "disc" else max(1, side // 14)
            cv2.circle(image, (half, half), radius, color, thickness, cv2.LINE_AA)
    return image
