"""Blocks of words: each function sets one into a box and returns how tall it came out, in dots."""

from __future__ import annotations

from dataclasses import replace

from research.pages.classes import LINE, TEXT
from research.pages.press import Press, fitting, set_words
from research.pages.sheet import Box, Ink
from research.pages.words import Writer

__all__ = ["banner", "code", "formula", "heading", "listing", "paragraph"]


def paragraph(press: Press, box: Box) -> float:
    """Running text; some of it underlined, highlighted or crossed by nothing at all."""
    rng = press.rng
    face = press.heading if rng.chance(0.08) else None
    height = set_words(press, box, rng.whole(2, 14), press.font(1.0, face))
    rows = int(height / press.line)
    if rows and rng.chance(0.08):
        y = box.top + rng.whole(1, rows) * press.line
        left = box.left + rng.between(0, 0.6) * box.width
        mark = Box(left, y, left + rng.between(0.1, 0.4) * box.width, y)
        if rng.chance(0.6):
            low = y + 0.18 * press.size
            pen = max(1.0, 0.07 * press.size)
            press.sheet.rule(
                (mark.left, low), (mark.right, low), pen, replace(press.ink, label=LINE)
            )
        else:
            band = Box(mark.left, y - press.size, mark.right, y + 0.3 * press.size)
            press.sheet.fill(
                band, rng.pick(((250, 240, 60), (150, 245, 120), (250, 150, 200))), 0.5
            )
    return height + press.line * rng.pick((0.0, 0.0, 0.5, 1.0))


def heading(press: Press, box: Box) -> float:
    """A larger line, now and then with a rule under it."""
    rng, scale = press.rng, press.rng.between(1.1, 2.4)
    font, text = press.font(scale, press.heading), press.writer.title()
    scale *= min(1.0, box.width / max(1.0, font.getlength(text)))
    font = press.font(scale, press.heading)
    ink = replace(press.ink, color=rng.color(0, 160)) if rng.chance(0.2) else press.ink
    y = box.top + 1.4 * scale * press.size
    left = box.left + (rng.pick((0.0, 0.0, 0.5)) * (box.width - font.getlength(text)))
    press.show(text, left, y, font, ink)
    if rng.chance(0.3):
        low = y + 0.4 * scale * press.size
        pen = press.unit * rng.between(0.5, 1.5)
        press.sheet.rule((box.left, low), (box.right, low), pen, press.rules)
    return 2.0 * scale * press.size


def banner(press: Press, box: Box) -> float:
    """Light words on a dark bar; the bar itself is paper."""
    rng, height = press.rng, press.size * press.rng.between(1.8, 4)
    press.sheet.fill(Box(box.left, box.top, box.right, box.top + height), rng.color(0, 150))
    font = press.font(0.5 * height / press.size, press.heading)
    words = press.writer.title(4).split()
    count, _ = fitting(words, font, 0.9 * box.width)
    light = Ink(TEXT, rng.color(225, 255))
    press.show(
        " ".join(words[:count]), box.left + 0.04 * box.width, box.top + 0.68 * height, font, light
    )
    return height + press.line


def listing(press: Press, box: Box) -> float:
    """A list with bullets, dashes or numbers."""
    rng, font, y = press.rng, press.font(), box.top
    mark = rng.pick(("•", "-", "1.", "a)"))
    if mark == "•" and press.face.path is None:
        mark = "-"
    for number in range(rng.whole(2, 7)):
        if y + press.line > box.bottom:
            break
        shown = mark.replace("1", str(number + 1)).replace("a", chr(97 + number))
        press.show(shown, box.left + press.size, y + press.line, font, press.ink)
        inner = Box(box.left + 2.6 * press.size, y, box.right, box.bottom)
        y += set_words(press, inner, rng.whole(1, 3), font)
    return y - box.top + 0.5 * press.line


def code(press: Press, box: Box) -> float:
    """Lines of source text, indented, perhaps on a tinted ground."""
    rng, lines = press.rng, press.rng.whole(2, 9)
    faces = [face for face in press.fonts.having("latin") if "mono" in face.family.lower()]
    font = press.font(0.92, rng.pick(faces) if faces else None)
    latin = Writer(rng, "latin")
    height = (lines + 0.6) * press.line
    if rng.chance(0.4):
        press.sheet.fill(
            Box(box.left, box.top, box.right, box.top + height), rng.color(205, 245), 0.8
        )
    for line in range(lines):
        y = box.top + (line + 1) * press.line
        sign = rng.pick((" = ", ".", "(", " + ", "_"))
        text = f"{latin.word()}{sign}{latin.word()}({latin.word()})"
        if rng.chance(0.3):
            text = ">>> " + text
        count, _ = fitting(text.split(), font, 0.9 * box.width)
        text = " ".join(text.split()[:count])
        press.show(text, box.left + (1 + 2 * rng.whole(0, 3)) * press.size, y, font, press.ink)
    return height + 0.6 * press.line


def formula(press: Press, box: Box) -> float:
    """A displayed formula: letters, raised and lowered figures, a fraction with its bar."""
    rng, font, small = press.rng, press.font(1.1), press.font(0.7)
    signs = "=+-<>()[]/|" + ("αβγλμπσωθ" if "greek" in press.face.scripts else "xyzk")
    x, y = box.left + rng.between(0.05, 0.4) * box.width, box.top + 1.8 * press.line
    for _ in range(rng.whole(4, 16)):
        if x > box.right - 3 * press.size:
            break
        if rng.chance(0.12):
            upper, lower = (f"{latin} {rng.pick('+-')} {rng.whole(1, 9)}" for latin in "an")
            length = max(font.getlength(upper), font.getlength(lower))
            press.show(upper, x, y - 0.75 * press.size, font, press.ink)
            press.show(lower, x, y + 0.75 * press.size, font, press.ink)
            middle, pen = y - 0.3 * press.size, max(1.0, 0.06 * press.size)
            press.sheet.rule((x, middle), (x + length, middle), pen, replace(press.ink, label=LINE))
            x += length + 0.4 * press.size
            continue
        token = (
            rng.pick(signs) if rng.chance(0.5) else rng.pick("abcdefghijkmnpqrstuvwxyzKLMNRT0123")
        )
        press.show(token, x, y, font, press.ink)
        x += font.getlength(token)
        if rng.chance(0.35):
            token, shift = rng.pick("ijkn012"), rng.pick((-0.5, 0.25)) * press.size
            press.show(token, x, y + shift, small, press.ink)
            x += small.getlength(token)
        x += 0.25 * press.size
    return 3 * press.line
