"""Which media type to answer with (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["choose"]


def choose(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that ``accept`` likes best; among equals the first; ``None`` if it takes none.

    Example:
        >>> choose("application/json, image/*;q=0.5", ["image/png", "application/json"])
        'application/json'
    """
    ranges = [_parse(entry) for entry in accept.lower().split(",") if entry.strip()]
    if not ranges:
        return offers[0] if offers else None
    best = max(offers, key=lambda offer: _quality(offer, ranges), default=None)
    return best if best is not None and _quality(best, ranges) > 0 else None


def _parse(entry: str) -> tuple[str, float]:
    media, *parameters = (part.strip() for part in entry.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return media, float(quality)
    except ValueError:
        return media, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers ``offer``."""
    for wanted in (offer, offer.partition("/")[0] + "/*", "*/*"):
        for media, quality in ranges:
            if media == wanted:
                return quality
    return 0.0
