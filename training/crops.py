"""Training batches: random crops whose content depends only on seed and iteration."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluate import IGNORE
from training.pages import Page

__all__ = ["CropSampler"]


class CropSampler:
    """Draws batches from pages held in memory.

    Batch ``i`` is a function of ``(seed, i)`` alone, so a resumed run sees what an uninterrupted
    one would have seen.
    """

    def __init__(self, pages: Sequence[Page], *, crop: int, batch_size: int, seed: int) -> None:
        if not pages:
            raise ValueError("pages: expected at least one, got none")
        self.pages = pages
        self.crop = crop
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, iteration: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images uint8 [N, crop, crop, 3] and masks uint8 [N, crop, crop]; 255 is outside."""
        rng = np.random.default_rng((self.seed, iteration))
        crops = [self._crop(rng) for _ in range(self.batch_size)]
        images, masks = zip(*crops, strict=True)
        return np.stack(images), np.stack(masks)

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        page = self.pages[int(rng.integers(len(self.pages)))]
        height, width = page.mask.shape
        size = self.crop
        top = rng.integers(max(height - size, 0) + 1)
        left = rng.integers(max(width - size, 0) + 1)
        image = page.image[top : top + size, left : left + size]
        mask = page.mask[top : top + size, left : left + size]
        bottom, right = size - mask.shape[0], size - mask.shape[1]
        if bottom or right:
            # As in `predict`: the network sees edge padding below and to the right.
            image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
            mask = np.pad(mask, ((0, bottom), (0, right)), constant_values=IGNORE)
        return _jitter(image, rng), mask


def _jitter(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random exposure, contrast, gamma and colour balance; sometimes grey."""
    if rng.random() < 0.2:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        image = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    levels = np.linspace(0, 1, 256)[:, None]
    gamma, contrast = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.15))
    gain = np.exp(rng.normal(0, 0.04, 3)) * np.exp(rng.normal(0, 0.1))
    curve = ((levels**gamma - 0.5) * contrast + 0.5) * gain
    table = (np.clip(curve, 0, 1) * 255 + 0.5).astype(np.uint8)
    jittered: NDArray[np.uint8] = cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
    return jittered
