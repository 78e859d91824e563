"""``Behind``: which classes a layer behind the network moves, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppool.export._behind import Moved, Part
from ppool.export._context import Blocks, Whole
from ppool.export._ink import Ink
from ppool.metadata import LabelClass

__all__ = ["Behind"]


@dataclass(frozen=True)
class Behind:
    """What an exported file does to its network's logits, of as many pixels as the photo.

    Attributes:
        ink: Classes that are marks on a ground, whose border is to lie between the mean greys of
            both around it on each photo; see :class:`ppool.export._ink.Ink`.
        blocks: Classes that are alike and come in blocks, such as print and handwriting: those
            around a pixel tell which of them it is; see :class:`ppool.export._context.Blocks`.
        whole: The class of photos that are one thing all over, such as picture; see
            :class:`ppool.export._context.Whole`.
    """

    ink: Sequence[str] = ()
    blocks: Sequence[str] = ()
    whole: str | None = None

    def layer(self, classes: Sequence[LabelClass]) -> Moved | None:
        """What to put behind a network of these classes; ``None`` if nothing.

        Raises:
            ValueError: if one is no class, blocks are of one class, or no class is left for the
                ground of ink.
        """
        ids = {entry.name: entry.id for entry in classes}
        whole = () if self.whole is None else (self.whole,)
        for option, names, fewest, most in (
            ("ink", self.ink, 1, len(ids) - 1),
            ("blocks", self.blocks, 2, len(ids)),
            ("whole", whole, 1, 1),
        ):
            if names and (set(names) - ids.keys() or not fewest <= len(set(names)) <= most):
                some = "one" if most == 1 else f"{fewest} to {most}"
                raise ValueError(
                    f"{option}: expected {some} of the classes {', '.join(ids)}, got "
                    f"{', '.join(names)}"
                )
        parts: list[Part] = []
        if self.ink:
            parts.append(Ink([ids[name] for name in self.ink], len(ids)))
        if self.blocks:
            parts.append(Blocks([ids[name] for name in self.blocks], len(ids)))
        parts += [Whole(ids[name], len(ids)) for name in whole]
        return Moved(parts) if parts else None
