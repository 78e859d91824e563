"""Why a photo cannot be segmented; whoever serves it decides what that means in a protocol.

CodecError
├── TooLarge          over a limit in pixels, sides or frames
├── UnsupportedImage  of a type, or a variant of one, that is not decoded
├── CorruptImage      cut off or damaged
├── NoSuchPage        fewer pages than asked for
└── CannotTile        the network's logits cannot be blended
"""

# ruff: noqa: N818 - these are outcomes, and "TooLargeError" would say no more

from __future__ import annotations

__all__ = [
    "CannotTile",
    "CodecError",
    "CorruptImage",
    "NoSuchPage",
    "TooLarge",
    "UnsupportedImage",
]


class CodecError(Exception):
    """A photo that cannot be segmented; the message is a sentence that says what to do."""


class TooLarge(CodecError):
    """Over a limit in pixels, sides or frames."""


class UnsupportedImage(CodecError):
    """Sound, perhaps, but of no type or variant that is decoded."""


class CorruptImage(CodecError):
    """Cut off or damaged."""


class NoSuchPage(CodecError):
    """The file has fewer pages than asked for."""


class CannotTile(CodecError):
    """The network cannot see a photo in windows."""
