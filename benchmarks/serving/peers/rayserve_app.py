"""Ray Serve: two replicas of one core, each with ``serve.batch``."""

import signal
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.serving import work


@serve.deployment(
    num_replicas=work.WORKERS, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1}
)
class Segment:
    """Decode and encode a request, infer in batches."""

    def __init__(self) -> None:
        self.model = work.session()

    @serve.batch(
        max_batch_size=work.MAX_BATCH_SIZE,
        batch_wait_timeout_s=work.MAX_DELAY_MILLISECONDS / 1e3,
    )
    async def infer(self, inputs: list[Any]) -> list[Any]:
        """Class ids of the batch."""
        return list(work.infer(self.model, np.stack(inputs)))

    async def __call__(self, request: Request) -> Response:
        """The mask of a photo; readiness on GET."""
        if request.method == "GET":
            return Response("ready")
        x, size = work.decode(await request.body())
        return Response(work.encode(await self.infer(x), size), media_type="image/png")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="warning", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": work.PORT})
    serve.run(Segment.bind(), route_prefix="/segment")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
