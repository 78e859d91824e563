"""What the documentation says that a reader has: networks of others, and photos with masks.

The networks are the real ones, or small ones of the same form.

``make zoo`` fetches the real ones and says with ``ZOO_PUBLISHED`` where they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from PIL import Image

from tests.service.zoo import Net, node

__all__ = ["put_networks", "put_photos"]

PLAYGROUND = Path(__file__).parents[2] / "service" / "playground"
# Absolute, for pages are read in folders of their own.
PUBLISHED = Path(os.environ.get("ZOO_PUBLISHED", "/nonexistent")).resolve()
DETECTION = Path("ch_PP-OCRv4_det_infer.onnx")


def put_networks(folder: Path) -> None:
    """``isnet.onnx``, PP-OCR's detection and ``segformer/``, as one would have downloaded them."""
    if PUBLISHED.is_dir():
        write_isnet("small", folder / "isnet.onnx")
        models = PUBLISHED / "rapidocr_onnxruntime" / "models"
        (folder / DETECTION).symlink_to(models / DETECTION)
    else:
        maps = [node("Sigmoid", ["score"], "output"), node("Sigmoid", ["score"], "1890")]
        isnet = Net(
            classes=1, sizes=(1, 3, 96, 96), after=maps, output="output",
            more=[("1890", TensorProto.FLOAT)],
        )  # fmt: skip
        onnx.save(isnet(), folder / "isnet.onnx")
        text = Net(classes=1, after=[node("Sigmoid", ["score"], "sigmoid_0.tmp_0")],
                   output="sigmoid_0.tmp_0")  # fmt: skip
        onnx.save(text(), folder / DETECTION)
    put_segformer(folder / "segformer")


def put_segformer(folder: Path) -> None:
    """Files as the hub has them; weights of the published networks are on no package index."""
    (folder / "onnx").mkdir(parents=True)
    onnx.save(Net(stride=4)(), folder / "onnx" / "model.onnx")
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "do_normalize": True,
        "do_reduce_labels": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "rescale_factor": 1 / 255,
        "size": {"height": 512, "width": 512},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    names = {"0": "wall", "1": "building", "2": "sky", "3": "floor"}
    (folder / "config.json").write_text(json.dumps({"id2label": names}))


def write_isnet(size: str, path: Path) -> Path:
    """ISNet, which its package holds in pieces: ``small`` is quantised, ``medium`` float16."""
    pieces = PUBLISHED / "package" / "dist"
    parts = json.loads((pieces / "resources.json").read_text())[f"/models/{size}"]["chunks"]
    path.write_bytes(b"".join((pieces / part["hash"]).read_bytes() for part in parts))
    return path


def put_photos(folder: Path) -> None:
    """Two pages, and masks of their ink by a threshold, as ``ppool train init`` takes them."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name in ("notes", "desk"):
        photo = PLAYGROUND / f"{name}.jpg"
        (folder / "images" / photo.name).write_bytes(photo.read_bytes())
        ink = np.asarray(Image.open(photo).convert("L")) < 100
        Image.fromarray(ink.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    (folder / "classes.txt").write_text("paper\nink\n")
