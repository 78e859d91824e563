"""The printing press: type, inks and choices of one sheet, and running text set with them."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageFont

from research.pages.fonts import FontFace, FontLibrary
from research.pages.sheet import Box, Ink, Sheet, text_alpha
from research.pages.words import Writer
from research.rng import Rng

__all__ = ["Press", "fitting", "set_words"]


@dataclass(frozen=True)
class Press:
    """All that is needed to set a block: the sheet, the type and the choices.

    Attributes:
        rng: the choices.
        fonts: the faces to choose from.
        sheet: what is printed on.
        writer: what is printed.
        face: the body face.
        heading: the face of headings.
        size: body size in dots per em.
        leading: distance of baselines against the size.
        ink: the ink of body text.
        rules: the ink of rules.
        justified: whether paragraphs fill their lines.
    """

    rng: Rng
    fonts: FontLibrary
    sheet: Sheet
    writer: Writer
    face: FontFace
    heading: FontFace
    size: float
    leading: float
    ink: Ink
    rules: Ink
    justified: bool

    @property
    def unit(self) -> float:
        """Dots per pixel of the final image."""
        return self.sheet.unit

    @property
    def line(self) -> float:
        """Distance of two baselines in dots."""
        return self.size * self.leading

    def font(self, scale: float = 1.0, face: FontFace | None = None) -> ImageFont.FreeTypeFont:
        """The body face, or another one, at a multiple of the body size."""
        complex_script = self.writer.script in {"arabic", "devanagari"}
        return (face or self.face).load(self.size * scale, complex_script)

    def show(self, text: str, x: float, y: float, font: ImageFont.FreeTypeFont, ink: Ink) -> None:
        """Set text from (x, y) on the baseline."""
        coverage, left, top = text_alpha(font, text)
        self.sheet.put(coverage, x + left, y + top, ink)


def fitting(words: list[str], font: ImageFont.FreeTypeFont, width: float) -> tuple[int, float]:
    """How many words fit on a line of this width, at least one, and their total length."""
    space, used = font.getlength(" "), 0.0
    for count, word in enumerate(words):
        length = font.getlength(word)
        if count and used + count * space + length > width:
            return count, used
        used += length
    return len(words), used


def set_words(press: Press, box: Box, lines: int, font: ImageFont.FreeTypeFont) -> float:
    """Set up to ``lines`` lines of running text; return the height used."""
    words = press.writer.words(lines * max(2, int(box.width / press.size / 2)))
    y, indent = box.top, press.size * (1.5 if press.rng.chance(0.4) else 0)
    space = font.getlength(" ")
    backwards = press.writer.script in {"hebrew", "arabic"}
    for line in range(lines):
        y += press.line
        if y > box.bottom or not words:
            return y - press.line - box.top
        width = box.width - indent
        count, used = fitting(words, font, width)
        row, words = words[:count], words[count:]
        last = line == lines - 1
        gap = (width - used) / (count - 1) if press.justified and count > 1 and not last else space
        if last and press.rng.chance(0.8):
            row = row[: max(1, int(count * press.rng.between(0.2, 1)))]
        if gap <= 1.01 * space and not backwards:
            press.show(" ".join(row), box.left + indent, y, font, press.ink)
        else:
            x = box.left + indent
            for word in row:
                length = font.getlength(word)
                at = box.left + box.right - x - length if backwards else x
                press.show(word, at, y, font, press.ink)
                x += length + gap
        indent = 0.0
    return y - box.top
