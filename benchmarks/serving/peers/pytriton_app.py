"""Triton through PyTriton: encoded photos in, PNG out, Triton's dynamic batcher between."""

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving import work

model = work.session()


@batch  # type: ignore[untyped-decorator]
def segment(image: np.ndarray) -> dict[str, np.ndarray]:
    """The masks of a batch of photos, bytes [N, 1] to bytes [N, 1]."""
    inputs, sizes = zip(*(work.decode(photo[0]) for photo in image), strict=True)
    masks = map(work.encode, work.infer(model, np.stack(inputs)), sizes)
    return {"mask": np.array([[mask] for mask in masks], dtype=np.object_)}


if __name__ == "__main__":
    config = TritonConfig(http_port=work.PORT, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="segment",
            infer_func=segment,
            inputs=[Tensor(name="image", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="mask", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(
                max_batch_size=work.MAX_BATCH_SIZE,
                batcher=DynamicBatcher(
                    max_queue_delay_microseconds=work.MAX_DELAY_MILLISECONDS * 1000
                ),
            ),
        )
        triton.serve()
