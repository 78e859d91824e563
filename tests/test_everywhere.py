"""The shipped model gives one mask wherever people run ONNX: each row of the README's table."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from PIL import Image
from scipy.ndimage import maximum_filter
from skimage.measure import block_reduce

from ppool.runtime import make_session
from ppool.service.models import shipped_model

ROOT = Path(__file__).parents[1]
MODEL = shipped_model()
Array = NDArray[Any]

# Print, lines, a stamp and paper.
with Image.open(ROOT / "service" / "playground" / "desk.jpg") as page:
    IMAGE = np.asarray(page.crop((256, 240, 352, 304)))[None]


def library(image: Array) -> Array:
    session = make_session(MODEL)
    if session.kernels != "native":
        pytest.skip("the native library is not built")
    return session.run(["mask"], {"image": image})[0]


class MaxPool(OpRun):
    """Of stride 1 or of windows side by side: onnx 1.23's own fails where they are not square."""

    op_domain = ""

    def _run(
        self, x: Array, kernel_shape: list[int], strides: list[int] | None = None, **_: Any
    ) -> tuple[Array]:
        if strides is None or max(strides) == 1:
            return (maximum_filter(x, (1, 1, *kernel_shape), mode="constant", cval=-np.inf),)
        assert list(strides) == list(kernel_shape)
        return (block_reduce(x, (1, 1, *kernel_shape), np.max, cval=-np.inf),)


def reference(image: Array) -> Array:
    # It takes the inner branches of the switches as they come; nobody asks for them here.
    model = onnx.load(MODEL)
    switches = {
        t.name: np.array(False) for t in model.graph.initializer if t.name.endswith("_wanted")
    }
    evaluator = ReferenceEvaluator(model, new_ops=[MaxPool])
    return evaluator.run(["mask"], {"image": image, **switches})[0]


def openvino(image: Array) -> Array:
    ov = pytest.importorskip("openvino")
    model = inline_local_functions(onnx.load(MODEL))
    network = ov.Core().compile_model(
        ov.Core().read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(network({"image": image})["mask"])


SCRIPT = """
const ort = require(process.argv[1]);
const [, , model, file, dims] = process.argv;
ort.InferenceSession.create(model).then(async (session) => {
  const pixels = new Uint8Array(require("fs").readFileSync(file));
  const image = new ort.Tensor("uint8", pixels, JSON.parse(dims));
  const { mask } = await session.run({ image }, ["mask"]);
  console.log(JSON.stringify({ dims: mask.dims, data: Array.from(mask.data) }));
});
"""


def in_node(package: str, folder: Path) -> Callable[[Array], Array]:
    def run(image: Array) -> Array:
        node = shutil.which("node")
        if node is None:
            pytest.skip("Node.js is not installed")
        if subprocess.run(
            [node, "-e", f"require.resolve('{package}')"], capture_output=True, check=False
        ).returncode:
            pytest.skip(f"{package} is not where NODE_PATH says")
        pixels = folder / "pixels"
        pixels.write_bytes(image.tobytes())
        command = [node, "-e", SCRIPT, package, str(MODEL), str(pixels), json.dumps(image.shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        found = json.loads(done.stdout)
        return np.array(found["data"], np.uint8).reshape(found["dims"])

    return run


@pytest.mark.parametrize(
    "where", ["library", "reference", "openvino", "onnxruntime-node", "onnxruntime-web"]
)
def test_the_mask_is_that_of_onnx_runtime_alone(where: str, tmp_path: Path) -> None:
    runs = {"library": library, "reference": reference, "openvino": openvino}
    run = runs.get(where) or in_node(where, tmp_path)
    mask = run(IMAGE)
    (alone,) = make_session(MODEL, use_native=False).run(["mask"], {"image": IMAGE})
    assert len(np.unique(alone)) >= 3
    assert mask.dtype == np.uint8
    assert np.count_nonzero(mask != alone) <= 2
