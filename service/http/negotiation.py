"""Which media type to answer with (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["choose"]

# More than any client sends; a head has room for tens of thousands.
_MAX_RANGES = 100

_SHORT = 256

_QUALITY = re.compile(r"0?\.\d+|0\.?|1(\.0*)?")


def choose(accept: str, offers: tuple[str, ...]) -> str | None:
    """The offer that ``accept`` likes best; among equals the first; ``None`` if it takes none.

    Example:
        >>> choose("application/json, image/*;q=0.5", ("image/png", "application/json"))
        'application/json'
    """
    # Most clients send one of a few, and working it out takes as long as reading the header.
    return (_remembered if len(accept) <= _SHORT else _chosen)(accept, offers)


def _chosen(accept: str, offers: tuple[str, ...]) -> str | None:
    entries = [entry for entry in accept.lower().split(",", _MAX_RANGES) if entry.strip()]
    if not entries:
        return offers[0] if offers else None
    ranges = dict(map(_parse, reversed(entries[:_MAX_RANGES])))  # the first of equals counts
    best = max(offers, key=lambda offer: _quality(offer, ranges), default=None)
    return best if best is not None and _quality(best, ranges) > 0 else None


_remembered = lru_cache(maxsize=256)(_chosen)


def _parse(entry: str) -> tuple[str, float]:
    media, *parameters = (part.strip() for part in entry.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    return media, float(quality) if _QUALITY.fullmatch(quality) else 0.0


def _quality(offer: str, ranges: dict[str, float]) -> float:
    """The weight of the most specific range that covers ``offer``."""
    for wanted in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if wanted in ranges:
            return ranges[wanted]
    return 0.0
