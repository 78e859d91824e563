"""How well the second of two classes is told from the first at any threshold: AUC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppool.scoring import IGNORE

__all__ = ["LEVELS", "Ranking"]

LEVELS = 65536
"""Steps that logits are counted in; AUC depends on the order of probabilities alone."""

# Differences of logits from -32 to 32: beyond, a probability in float32 is 0 or 1 anyway.
_STEPS = LEVELS / 64


class Ranking:
    """Pixels of each of two classes by how likely the second one was called.

    Attributes:
        counts: int64 [2, LEVELS], a row for each true class. The shares of several processes can be
            added.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros((2, LEVELS), np.int64)

    def update(self, truth: NDArray[np.uint8], margin: NDArray[np.floating[Any]]) -> None:
        """Count pixels; those whose truth is 255 are left out.

        Args:
            truth: 0, 1 or 255, [H, W].
            margin: The second class's logit less the first's, [H, W]: the logit of its probability.
        """
        seen = truth != IGNORE
        level = np.clip((margin[seen] + 32) * _STEPS, 0, LEVELS - 1).astype(np.int64)
        pairs = truth[seen].astype(np.int64) * LEVELS + level
        self.counts += np.bincount(pairs, minlength=2 * LEVELS).reshape(2, LEVELS)

    @property
    def auc(self) -> float:
        """Area under the ROC curve of all pixels together; NaN unless both classes occur.

        It is the share of pairs, a pixel of each class, that are in the right order; those of one
        level count half (Hanley and McNeil, Radiology 1982).
        """
        first, second = self.counts
        below = np.cumsum(first) - first
        pairs = int(first.sum()) * int(second.sum())
        return float((second * (below + first / 2)).sum() / pairs) if pairs else float("nan")
