"""Training batches: random crops whose content depends only on seed and iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from ppool.training.dataset import IGNORE, SegmentationDataset
from ppool.training.recipe import Recipe

__all__ = ["Batch", "CropSampler", "batches"]

Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class CropSampler:
    """Draws the batches of a recipe from a data set.

    Batch ``i`` is a function of ``(seed, i)`` alone, so a resumed run sees what an uninterrupted
    one would have seen, and so do several processes that share it.

    Raises:
        ValueError: if the data set is empty.
    """

    def __init__(self, dataset: SegmentationDataset, recipe: Recipe) -> None:
        if not len(dataset):
            raise ValueError("data set: expected at least one image, got none")
        self.dataset = dataset
        self.recipe = recipe

    def batch(self, iteration: int) -> Batch:
        """Images uint8 [N, crop, crop, 3] and masks uint8 [N, crop, crop]; 255 is outside."""
        rng = np.random.default_rng((self.recipe.seed, iteration))
        crops = [self._crop(rng) for _ in range(self.recipe.batch_size)]
        images, masks = zip(*crops, strict=True)
        return np.stack(images), np.stack(masks)

    def _crop(self, rng: np.random.Generator) -> Batch:
        sample = self.dataset[int(rng.integers(len(self.dataset)))]
        height, width = sample.mask.shape
        size = self.recipe.crop
        top = rng.integers(max(height - size, 0) + 1)
        left = rng.integers(max(width - size, 0) + 1)
        image = sample.image[top : top + size, left : left + size]
        mask = sample.mask[top : top + size, left : left + size]
        bottom, right = size - mask.shape[0], size - mask.shape[1]
        if bottom or right:
            # As in `predict`: the network sees edge padding below and to the right.
            image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
            mask = np.pad(mask, ((0, bottom), (0, right)), constant_values=IGNORE)
        if self.recipe.augmentation == "exposure":
            return _jitter(image, rng), mask
        step = -1 if rng.random() < 0.5 else 1
        return image[:, ::step], mask[:, ::step]


def batches(
    sampler: CropSampler, iterations: Iterable[int], workers: int
) -> Generator[Batch, None, None]:
    """The batches of ``iterations`` in order, drawn ahead by ``workers`` threads if any."""
    if not workers:
        yield from map(sampler.batch, iterations)
        return
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for iteration in iterations:
            pending.append(pool.submit(sampler.batch, iteration))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


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
