"""BentoML: a batched model service behind an endpoint that decodes and encodes."""

import asyncio
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType

from benchmarks.serving import work

TRAFFIC = {"timeout": 60, "max_concurrency": 256}


@bentoml.service(workers=1, traffic=TRAFFIC)
class Model:
    """Inference, in batches."""

    def __init__(self) -> None:
        self.session = work.session()

    @bentoml.api(batchable=True, max_batch_size=work.MAX_BATCH_SIZE, max_latency_ms=60_000)
    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Class ids of the batch."""
        return work.infer(self.session, batch.astype(np.float32, copy=False))


@bentoml.service(workers=work.WORKERS, traffic=TRAFFIC)
class Segment:
    """Decoding and encoding."""

    model = bentoml.depends(Model)

    @bentoml.api(route="/segment")
    async def segment(
        self, image: Annotated[Path, ContentType("image/jpeg")]
    ) -> Annotated[Path, ContentType("image/png")]:
        """The mask of a photo."""
        x, size = await asyncio.to_thread(work.decode, image.read_bytes())
        labels = await self.model.to_async.predict(x[None])
        mask = image.with_suffix(".png")
        mask.write_bytes(await asyncio.to_thread(work.encode, np.asarray(labels[0]), size))
        return mask
