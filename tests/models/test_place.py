"""A network that pools before its ReLUs is exported and answers like any other."""

from pathlib import Path

import numpy as np
import torch

from ppool.export import export_checkpoint
from ppool.feeding import Normalisation, feed
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.runtime import make_session
from ppool.training.evaluate import predict


def test_the_exported_file_gives_the_masks_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"ppool_place": "before_relu", "ppool_options": {"alpha_init": 5.0}}
    model = create_model("vgg_small", num_classes=3, **settings).eval()  # type: ignore[arg-type]
    checkpoint = Checkpoint(
        network="vgg_small",
        pooling="ppool",
        classes=tuple(LabelClass(i, f"class {i}", "#000000") for i in range(3)),
        input=InputPolicy(64, 16),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        state_dict=model.state_dict(),
        **settings,  # type: ignore[arg-type]
    )
    checkpoint.save(tmp_path / "checkpoint.pt")
    export_checkpoint(tmp_path / "checkpoint.pt", tmp_path / "model.onnx")
    session = make_session(tmp_path / "model.onnx")
    assert [stage.name for stage in session.metadata.stages] == [f"pool{i}" for i in range(1, 6)]
    rng = np.random.default_rng(1)
    image = np.kron(rng.integers(0, 256, (8, 12, 3), np.uint8), np.ones((5, 5, 1), np.uint8))
    photo = feed(image, checkpoint.input, image.shape[:2])
    (mask,) = session.run(["mask"], {"image": photo.image[None]})
    expected = predict(model, photo, Normalisation(checkpoint.mean, checkpoint.std))
    assert len(np.unique(expected)) > 1
    assert (photo.mask(mask[0]) == expected).mean() > 0.999
    # Behind the ReLU the same weights are another network.
    behind = create_model("vgg_small", num_classes=3).eval()
    behind.load_state_dict(model.state_dict())
    other = predict(behind, photo, Normalisation(checkpoint.mean, checkpoint.std))
    assert (other != expected).any()
