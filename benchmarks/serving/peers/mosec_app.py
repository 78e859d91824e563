"""mosec: one batched stage with two worker processes; the photo is the raw body."""

from typing import Any

import numpy as np
from mosec import Server, Worker

from benchmarks.serving import work


class Segment(Worker):  # type: ignore[misc]
    """Decode in ``deserialize``, infer in ``forward``, encode in ``serialize``."""

    resp_mime_type = "image/png"

    def __init__(self) -> None:
        self.model = work.session()

    def deserialize(self, data: bytes) -> Any:
        """The photo as network input."""
        return work.decode(data)

    def forward(self, data: list[Any]) -> list[Any]:
        """Class ids of the batch."""
        labels = work.infer(self.model, np.stack([x for x, _ in data]))
        return [(mask, size) for mask, (_, size) in zip(labels, data, strict=True)]

    def serialize(self, data: Any) -> bytes:
        """The mask."""
        return work.encode(*data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Segment,
        num=work.WORKERS,
        max_batch_size=work.MAX_BATCH_SIZE,
        max_wait_time=work.MAX_DELAY_MILLISECONDS,
    )
    server.run()
