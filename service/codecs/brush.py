"""Masks as Label Studio's brush stores them: runs of the bytes of an RGBA picture, bit by bit.

The format is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: 32 bits
count the values, 5 are the bits of a value less one, four times 4 those of a run's length less one;
then for each run 1, which of the four sizes, its length less one, and the value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["brush_rle"]

_WORD_BITS = 8
_SIZES = (3, 4, 8, 16)
_CHANNELS = 4
# Pixels of the longest run.
_MOST = 2 ** _SIZES[-1] // _CHANNELS


def brush_rle(plane: NDArray[np.bool_]) -> bytes:
    """The file of a mask; Label Studio's JSON has it as a list of numbers.

    Shape:
        ``plane`` is [H, W].
    """
    flat = plane.ravel()
    begins = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    runs = np.diff(np.append(begins, flat.size))
    # Each run in pieces of the most there can be, and what is left.
    pieces = -(-runs // _MOST)
    lengths = np.full(pieces.sum(), _MOST, np.int64)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * _MOST
    values = np.repeat(flat[begins], pieces)
    counts = lengths * _CHANNELS - 1
    index = np.searchsorted(2 ** np.array(_SIZES), counts, side="right")
    size = np.array(_SIZES)[index]
    codes = (((4 + index) << size | counts) << _WORD_BITS) | values * 255
    head = flat.size * _CHANNELS << 5 | _WORD_BITS - 1
    for one in _SIZES:
        head = head << 4 | one - 1
    head_bits = np.array([int(bit) for bit in f"{head:053b}"], np.uint8)
    return np.packbits(np.concatenate((head_bits, _bits(codes, 3 + size + _WORD_BITS)))).tobytes()


def _bits(codes: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The last ``lengths`` bits of each number, behind each other."""
    ends = np.cumsum(lengths)
    bits = np.empty(ends[-1], np.uint8)
    for place in range(lengths.max()):
        those = lengths > place
        bits[ends[those] - 1 - place] = codes[those] >> place & 1
    return bits
