"""LitServe: a batched LitAPI, two workers of one thread each, as measured best on two cores."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request, Response

from benchmarks.serving import work


class SegmentAPI(litserve.LitAPI):  # type: ignore[misc]
    """Decode, predict and encode are LitServe's three hooks."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.model = work.session()

    def decode_request(self, request: Request) -> Any:
        """The photo as network input; LitServe hands over the parsed form."""
        return work.decode(request["image"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        """Inputs of one batch, stacked."""
        return np.stack([x for x, _ in inputs]), [size for _, size in inputs]

    def predict(self, inputs: Any) -> Any:
        """Class ids of the batch."""
        batch, sizes = inputs
        return list(zip(work.infer(self.model, batch), sizes, strict=True))

    def unbatch(self, output: Any) -> Any:
        """One result for each request."""
        return output

    def encode_response(self, output: Any) -> Response:
        """The mask."""
        return Response(work.encode(*output), media_type="image/png")


if __name__ == "__main__":
    api = SegmentAPI(
        max_batch_size=work.MAX_BATCH_SIZE,
        batch_timeout=work.MAX_DELAY_MILLISECONDS / 1e3,
        api_path="/segment",
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=work.WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=work.PORT, log_level="warning", generate_client_file=False)
