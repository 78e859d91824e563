"""From the network's coarse scores to probabilities, and to a plane a class, at the photo's size.

Scores are resized as those that the mask is made of: logits as logits, probabilities as such. A few
rows are worked on at a time, so that memory does not grow with classes times pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import HeadKind, ModelMetadata, ScoreKind, Scores
from ppool.service.answers import MapsWanted
from ppool.service.errors import TooLarge

__all__ = ["OWN", "STRIP_VALUES", "WHITE", "Maps", "ScoreReader", "read_scores"]

Values = NDArray[np.float32]

# As far from 0 and 1 as export keeps probabilities whose logarithms it takes.
_SMALLEST = 1e-6
# Of scores at the photo's size at a time: 8 MB.
STRIP_VALUES = 2**21
# Of maps at a time: a quarter of a GB in float16.
_MOST_VALUES = 2**27

# In place of a class id: whichever the mask has.
OWN = -1
# What a probability of 1 is.
WHITE = {"uint8": 255, "uint16": 65535, "float16": 1, "float32": 1}


@dataclass(frozen=True)
class Maps:
    """Maps at the photo's size.

    Attributes:
        probability: [H, W] by class id, or by ``OWN`` for the mask's own class.
        planes: 0 or 1, uint8 [H, W], by class id.
        opacity: How probably a pixel is of any of some classes, uint8 [H, W].
    """

    probability: Mapping[int, NDArray[np.generic]] = field(default_factory=dict)
    planes: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    opacity: NDArray[np.uint8] | None = None


class ScoreReader:
    """Takes scores at the photo's size, some rows at a time, and fills in maps.

    Args:
        about: Of the model.
        wanted: Which maps.
        size: Height and width of the photo.
        blended: Whether scores are blended of windows, which is done on the file's own: then
            logarithms of probabilities sum to 1 only when normalised again.

    Attributes:
        maps: What was filled in so far.

    Raises:
        TooLarge: if so many maps of such a photo are too many.
    """

    def __init__(
        self, about: ModelMetadata, wanted: MapsWanted, size: tuple[int, int], *, blended: bool
    ) -> None:
        most = _MOST_VALUES // (size[0] * size[1])
        if wanted.count > most:
            raise TooLarge(
                f"Ask for at most {most} maps of a photo of {size[1]} x {size[0]} pixels, not "
                f"{wanted.count}, or send a smaller photo."
            )
        self._head: HeadKind = about.head
        self._scores = about.scores or Scores("unknown")
        self._blended = blended
        self._size = size
        self._probability = wanted.probability
        self._dtype = np.dtype(wanted.dtype)
        keys = () if wanted.probability is None else wanted.probability or (OWN,)
        self.maps = Maps(
            {key: np.empty(size, self._dtype) for key in keys},
            {key: np.empty(size, np.uint8) for key in wanted.planes},
            np.empty(size, np.uint8) if wanted.opacity else None,
        )
        self._opacity = list(wanted.opacity)

    @property
    def _kind(self) -> ScoreKind:
        kind = self._scores.values
        return "logits" if self._blended and kind == "log-probabilities" else kind

    @property
    def _is_background_first(self) -> bool:
        return self._head in {"threshold", "multilabel"}

    def prepared(self, scores: Values) -> Values:
        """Coarse scores, [K, h, w], to what is resized: the network's own values.

        Logits remain what they are; else the result holds probabilities.
        """
        kind, threshold = self._kind, self._scores.threshold
        if kind == "log-probabilities":
            return np.exp(scores)
        if not self._is_background_first:
            return scores
        if kind == "log-odds":
            level = min(max(threshold, _SMALLEST), 1 - _SMALLEST)
            return _sigmoid(scores + np.float32(math.log(level / (1 - level))))
        # The background's are in nobody's way: it is what the others leave.
        return scores + np.float32(threshold)

    def add(self, top: int, values: Values, labels: NDArray[np.generic]) -> None:
        """Fill in rows from ``top`` on.

        Args:
            top: The first row.
            values: Prepared scores at the photo's size, [K, rows, columns]; what is beyond the
                photo is left out. They are overwritten.
            labels: The mask there, [rows, columns].
        """
        height, width = self._size
        count = min(values.shape[1], height - top)
        if count <= 0:
            return
        rows = slice(top, top + count)
        values, labels = values[:, :count, :width], labels[:count, :width]
        if self.maps.planes:
            self._add_planes(rows, values, labels)
        if self._probability is None and self.maps.opacity is None:
            return
        found = self._probabilities(values)
        if self.maps.opacity is not None:
            some = found[self._opacity]
            # Classes that may overlap are no shares of one whole.
            any_of_them = some.max(axis=0) if self._head == "multilabel" else some.sum(axis=0)
            self.maps.opacity[rows] = _in(np.dtype(np.uint8), any_of_them)
        for key, plane in self.maps.probability.items():
            own = key == OWN
            chosen = (
                np.take_along_axis(found, labels[None].astype(np.intp), 0)[0] if own else found[key]
            )
            plane[rows] = _in(self._dtype, chosen)

    def _add_planes(self, rows: slice, values: Values, labels: NDArray[np.generic]) -> None:
        """Whether each pixel is of a class, whatever others it is of."""
        own = values > np.float32(self._scores.threshold) if self._head == "multilabel" else None
        if own is not None:
            own[0] = ~own[1:].any(axis=0)
        for key, plane in self.maps.planes.items():
            plane[rows] = labels == key if own is None else own[key]

    def _probabilities(self, values: Values) -> Values:
        with np.errstate(all="ignore"):  # a network may answer infinities
            if not self._is_background_first:
                return _softmax(values) if self._kind == "logits" else values
            if self._kind == "logits":
                values = _sigmoid(values)
            np.subtract(1, values[1:].max(axis=0), out=values[0])
            return values


def read_scores(
    scores: Values | None, mask: NDArray[np.generic], whole: tuple[int, int], reader: ScoreReader
) -> Maps:
    """Maps of a photo from the scores that its mask was made of.

    Args:
        scores: As the file gives them, [K, h, w]; ``None`` where the mask tells enough.
        mask: At the photo's size.
        whole: Height and width of what the scores cover, padding included, in the photo's pixels.
        reader: Makes the maps.
    """
    height, width = mask.shape
    if scores is None:
        for key, plane in reader.maps.planes.items():
            np.equal(mask, key, out=plane.view(np.bool_))
        return reader.maps
    coarse = reader.prepared(scores)
    low, high, share = _between(np.arange(width), coarse.shape[2], whole[1])
    step = max(STRIP_VALUES // (len(coarse) * width), 1)
    for top in range(0, height, step):
        lines = np.arange(top, min(top + step, height))
        above, below, part = _between(lines, coarse.shape[1], whole[0])
        upper, lower = coarse.take(above, 1), coarse.take(below, 1)
        rows = upper + (lower - upper) * part[:, None]
        left, right = rows.take(low, 2), rows.take(high, 2)
        right -= left
        right *= share
        left += right
        reader.add(top, left, mask[top : top + step])
    return reader.maps


def _between(
    targets: NDArray[np.intp], length: int, target_length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Values]:
    """Half-pixel: the two of ``length`` cells that each target lies between, and its way along."""
    position = np.clip((targets + 0.5) * length / target_length - 0.5, 0, length - 1)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, length - 1), (position - low).astype(np.float32)


def _softmax(values: Values) -> Values:
    values -= values.max(axis=0)
    np.exp(values, out=values)
    values /= values.sum(axis=0)
    return values


def _sigmoid(values: Values) -> Values:
    # Of no large exponentials, which would overflow.
    found: Values = np.tanh(values * np.float32(0.5))
    found += 1
    found *= 0.5
    return found


def _in(dtype: np.dtype[np.generic], values: Values) -> NDArray[np.generic]:
    """Probabilities in a type; where a network answered no number there is none, which is 0."""
    held: Values = np.clip(np.nan_to_num(values, nan=0.0), 0, 1)
    if dtype.kind != "f":
        held = np.rint(held * np.float32(WHITE[str(dtype)]))
    found: NDArray[np.generic] = held.astype(dtype)
    return found
