"""Probabilities, planes and 16-bit masks over HTTP: judged by ONNX Runtime on the original file.

What comes back is decoded by OpenCV and NumPy; probabilities are taken by NumPy in float64 of
scores that PyTorch resized.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ppool.client import AsyncClient, Segmentation
from ppool.export import PRESETS, Adoption, adopt_model
from ppool.metadata import METADATA_KEY, Scores
from ppool.service.codecs.resizing import resized
from ppool.service.folder import Job
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import Client, encoded
from tests.service.test_folder import Folder

Array = NDArray[Any]
SIDE = 96


def network(
    channels: int,
    end: str | None = None,
    *,
    pads: int = 1,
    sizes: tuple[Any, ...] = ("n", 3, "h", "w"),
    spread: float = 4.0,
) -> onnx.ModelProto:
    """A convolution of stride 4 on raw bytes, and an operator behind it."""
    rng = np.random.default_rng(channels)
    weight = rng.standard_normal((channels, 3, 7, 7))
    weight -= weight.mean((1, 2, 3), keepdims=True)
    weight *= spread / 255 / 4
    nodes = [
        helper.make_node("Div", ["in", "white"], ["x"]),
        helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], strides=[4, 4], pads=[3 * pads] * 4, name="conv"
        ),
    ]
    if end == "ArgMax":
        nodes.append(helper.make_node("ArgMax", ["y"], ["out"], axis=1))
    else:
        settings = {"axis": 1} if end == "Softmax" else {}
        nodes.append(helper.make_node(end or "Identity", ["y"], ["out"], **settings))
    constants = {
        "white": np.float32(1),
        "w": weight.astype(np.float32),
        "b": rng.uniform(-0.5, 0.5, channels).astype(np.float32),
    }
    value = helper.make_tensor_value_info
    kind = TensorProto.INT64 if end == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [value("in", TensorProto.FLOAT, sizes)],
        [value("out", kind, [None] * 4)],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def photo(height: int = 64, width: int = SIDE) -> Array:
    coarse = np.random.default_rng(7).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def fine(coarse: Array, size: tuple[int, int]) -> Array:
    x = torch.from_numpy(np.ascontiguousarray(coarse, np.float64))
    return torch.nn.functional.interpolate(x, size, mode="bilinear").numpy()[0]


def softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(0))
    return raised / raised.sum(0)


def sigmoid(scores: Array) -> Array:
    return 1 / (1 + np.exp(-scores))


def with_background(probabilities: Array) -> Array:
    return np.concatenate((1 - probabilities.max(0, keepdims=True), probabilities))


@dataclass(frozen=True)
class Case:
    """A network, how it is adopted, and what becomes of its output resized to the photo."""

    model: onnx.ModelProto
    read: Callable[[Array], Array]
    options: dict[str, Any]

    def truth(self, image: Array, size: tuple[int, int] | None = None) -> Array:
        """Probabilities of all classes at the photo's size, float64 [K, H, W]."""
        session = onnxruntime.InferenceSession(self.model.SerializeToString())
        x = image.transpose(2, 0, 1)[None].astype(np.float32)
        (output,) = session.run(None, {"in": x})
        return self.read(fine(output, size or image.shape[:2]))


LEVEL = 0.3
CASES = {
    "logits": Case(network(5), softmax, {}),
    "softmax inside": Case(network(5, "Softmax"), lambda p: p, {}),
    "sigmoids that compete": Case(network(4, "Sigmoid"), lambda p: p, {"head": "argmax"}),
    "one logit": Case(network(1), lambda x: with_background(sigmoid(x)), {}),
    "one logit above 1": Case(
        network(1), lambda x: with_background(sigmoid(x)), {"threshold": 1.0}
    ),
    "one probability": Case(network(1, "Sigmoid"), with_background, {"threshold": LEVEL}),
    "overlapping logits": Case(
        network(4), lambda x: with_background(sigmoid(x)), {"head": "multilabel"}
    ),
    "overlapping probabilities": Case(
        network(4, "Sigmoid"), with_background, {"head": "multilabel", "threshold": LEVEL}
    ),
    "scores off the grid": Case(network(5, pads=0), softmax, {}),
    "one size, letterboxed": Case(
        network(5, sizes=(1, 3, SIDE, SIDE)), softmax, {"pad": (114, 114, 114)}
    ),
}


def adopted(case: Case, folder: Path) -> Path:
    source, path = folder / "network.onnx", folder / "adopted.onnx"
    onnx.save(case.model, source)
    options = {"classes": (), "normalisation": PRESETS["raw"], "multiple": 32, **case.options}
    adopt_model(source, path, Adoption(**options))
    return path


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any]
) -> Callable[[str], Any]:
    paths: dict[str, Path] = {}

    def serve(name: str) -> Any:
        if name not in paths:
            paths[name] = adopted(CASES[name], tmp_path_factory.mktemp("network"))
        return serving(load_segmenter(paths[name]), model=[paths[name]], workers=1)

    return serve


def opened(answer: Any) -> dict[str, Array]:
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def grey(content: bytes) -> Array:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def arrays(client: Client, image: Array, **query: Any) -> dict[str, Array]:
    return opened(ask(client, image, accept="application/x-npz", **query))


def ask(client: Client, image: Array, accept: str = "*/*", **query: Any) -> Any:
    return client.segment(encoded(image), accept=accept, params=query)


@pytest.mark.parametrize("name", CASES)
def test_probabilities_are_those_of_the_original_network(
    name: str, served: Callable[[str], Any]
) -> None:
    image = photo(SIDE, SIDE) if "letterboxed" in name else photo()
    truth = CASES[name].truth(image)
    with served(name) as client:
        plain = arrays(client, image)
        one = arrays(client, image, probability="winner")
        every = arrays(client, image, probability="all")
        picture = ask(client, image, probability="winner", bits="16")
        mask_only, with_more = (
            ask(client, image, accept="application/json", **query).json()["images"][0]
            for query in ({}, {"probability": "winner"})
        )
    # Asking for more leaves the mask as it is, to the bit.
    assert (plain["mask"] == one["mask"]).all()
    assert (plain["mask"] == every["mask"]).all()
    assert mask_only["mask"] == with_more["mask"]
    assert len(np.unique(plain["mask"])) > 1
    found = np.stack([every[key] for key in every if key.startswith("probability/")])
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, truth, atol=1e-3)
    own = np.take_along_axis(truth, plain["mask"][None].astype(int), 0)[0]
    np.testing.assert_allclose(one["probability"], own, atol=1e-3)
    sixteen = grey(picture.content)
    assert sixteen.dtype == np.uint16
    np.testing.assert_allclose(sixteen / 65535, own, atol=5e-5)
    (told,) = with_more["probability"]
    assert (told["id"], told["name"]) == (None, None)
    eight = grey(base64.b64decode(told["data"]))
    assert eight.dtype == np.uint8
    np.testing.assert_allclose(eight / 255, own, atol=0.5 / 255 + 1e-4)
    assert told["mean"] == pytest.approx(own.mean(), abs=1e-3)


def test_the_client_has_probabilities_by_class(served: Callable[[str], Any]) -> None:
    with served("logits") as client:

        async def segment(**asked: Any) -> Segmentation:
            transport = httpx.ASGITransport(client.app)
            async with AsyncClient("http://test", transport=transport) as ours:
                return await ours.segment(encoded(photo()), **asked)

        found = client.portal.call(partial(segment, probability=["class 1", "class 3"]))
        winner = client.portal.call(partial(segment, probability="winner"))
    truth = CASES["logits"].truth(photo())
    assert list(found.probability) == ["class 1", "class 3"]
    np.testing.assert_allclose(found.probability["class 3"], truth[3], atol=1e-3)
    assert winner.probability[""].shape == winner.mask.shape


def test_a_folder_has_a_picture_of_it_beside_each_mask(tmp_path: Path) -> None:
    segmenter = load_segmenter(adopted(CASES["logits"], tmp_path))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(photo()))
    job = Job(outputs=("mask", "probability", "json"))
    folder = Folder(tmp_path / "photos", tmp_path / "masks", segmenter, job)
    assert folder.run() == ("1 written, 0 kept, 0 failed, 0 skipped", {"a.png": ""})
    mask, sure = (
        grey((folder.masks / f"a.png{end}").read_bytes()) for end in (".png", ".probability.png")
    )
    truth = CASES["logits"].truth(photo())
    assert sure.shape == mask.shape[:2]
    np.testing.assert_allclose(sure / 255, truth.max(0), atol=0.5 / 255 + 1e-3)
    assert json.loads((folder.masks / "a.png.json").read_bytes())["probability"] is None


def test_a_photo_that_is_reduced_has_probabilities_at_its_own_size(
    served: Callable[[str], Any],
) -> None:
    image = photo(SIDE, 2 * SIDE)
    with served("one size, letterboxed") as client:
        found = arrays(client, image, probability="all")
    small = np.full((SIDE, SIDE, 3), 114, np.uint8)
    small[: SIDE // 2] = resized(image, SIDE // 2, SIDE)
    truth = CASES["one size, letterboxed"].truth(small, (2 * SIDE, 2 * SIDE))[:, :SIDE]
    values = np.stack([found[key] for key in found if key.startswith("probability/")])
    assert values.shape == truth.shape
    np.testing.assert_allclose(values, truth, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "logits"),
    [("logits", "logits"), ("softmax inside", "logits"), ("one probability", "one logit")],
)
def test_tiles_have_probabilities_without_seams(
    name: str, logits: str, served: Callable[[str], Any]
) -> None:
    case = replace(CASES[name], options=CASES[name].options | {"max_side": 64})
    image = photo(104, 176)
    # The mask of tiles is made of logits, whatever the network answers.
    truth = CASES[logits].truth(image)
    CASES["tiles of " + name] = case
    try:
        with served("tiles of " + name) as client:
            plain = arrays(client, image, mode="tile")
            found = arrays(client, image, mode="tile", probability="all")
            winner = arrays(client, image, mode="tile", probability="winner")
    finally:
        del CASES["tiles of " + name]
    assert (plain["mask"] == found["mask"]).all()
    values = np.stack([found[key] for key in found if key.startswith("probability/")])
    error = np.abs(values - truth)
    # Where windows meet, each sees its own padding; elsewhere they agree with the whole.
    assert np.median(error) < 1e-3
    assert np.mean(error > 0.02) < 0.2
    own = np.take_along_axis(values, plain["mask"][None].astype(int), 0)[0]
    np.testing.assert_allclose(winner["probability"], own, atol=1e-3)
    if name != "one probability":
        assert (own >= values.max(0) - 1e-3).all()
    steps = np.abs(np.diff(values.astype(np.float64), axis=2)).max(axis=(0, 1))
    real = np.abs(np.diff(truth, axis=2)).max(axis=(0, 1))
    assert (steps < real.max() * 1.2).all()


@pytest.mark.parametrize(
    ("name", "level"), [("overlapping logits", 0.5), ("overlapping probabilities", LEVEL)]
)
def test_classes_of_a_multilabel_network_have_a_plane_each(
    name: str, level: float, served: Callable[[str], Any]
) -> None:
    image = photo()
    truth = CASES[name].truth(image) > level
    truth[0] = ~truth[1:].any(0)
    assert (truth.sum(0) > 1).any()
    names = ["background", "class 0", "class 1", "class 2", "class 3"]
    with served(name) as client:
        found = arrays(client, image, planes="all")
        zipped = ask(client, image, accept="application/zip", planes="class 1,3")
        result = ask(client, image, accept="application/json", planes="all", mask="rle").json()[
            "images"
        ][0]
        one = ask(client, image, planes="class 2")
    for index, class_name in enumerate(names):
        plane = found[f"plane/{class_name}"]
        assert plane.dtype == np.uint8
        assert np.mean(plane != truth[index]) < 1e-3
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        files = [entry for entry in archive.namelist() if "plane" in entry]
        assert files == ["001-image.plane-2-class_1.png", "001-image.plane-3-class_2.png"]
        plane = grey(archive.read(files[0]))
    assert (plane == 255 * found["plane/class 1"]).all()
    assert (grey(one.content) == 255 * found["plane/class 2"]).all()
    assert [plane["name"] for plane in result["planes"]] == names
    for index, entry in enumerate(result["planes"]):
        decoded = from_rle(entry["mask"]["counts"][str(index)], entry["mask"]["size"])
        assert (decoded == found[f"plane/{names[index]}"]).all()
        assert entry["pixels"] == decoded.sum()


def from_rle(text: str, size: tuple[int, int]) -> Array:
    """COCO's run lengths undone, as ``rleFrString`` of the COCO API does it."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << 5 * shift
            more = bool(bits & 0x20)
            place += 1
            shift += 1
            if not more and bits & 0x10:
                value |= -1 << 5 * shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    values = np.arange(len(counts)) % 2
    return np.repeat(values, counts).reshape(size[::-1]).T


def test_what_has_no_probabilities_is_refused_by_name(
    tmp_path: Path, serving: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    labels = adopted(Case(network(5, "ArgMax"), softmax, {}), tmp_path)
    unknown = Case(network(1, "Relu"), softmax, {"head": "threshold", "threshold": 0.7})
    (tmp_path / "unknown").mkdir()
    values = adopted(unknown, tmp_path / "unknown")
    earlier = onnx.load(adopted_again(tmp_path))
    del earlier.graph.output[1:]
    (tmp_path / "earlier.onnx").write_bytes(earlier.SerializeToString())
    for path, reason in (
        (labels, "gives labels, and nothing of how sure it is"),
        (values, "are neither logits nor known to be probabilities"),
        (tmp_path / "earlier.onnx", "gives no scores, as those of an earlier version"),
    ):
        with serving(load_segmenter(path), model=[path], workers=1) as client:
            assert ask(client, photo()).status_code == 200
            for query in ({}, {"mode": "tile"}):
                refused = ask(client, photo(), probability="winner", **query)
                assert refused.status_code == 400
                assert refused.json()["type"] == "urn:ppool:problem:bad-request"
            refused = ask(client, photo(), probability="winner")
            assert reason in refused.json()["detail"]
            # A plane a class needs no probabilities where classes do not overlap.
            found = arrays(client, photo(), planes="all")
            assert (found["mask"] == 1).sum() == found[list(found)[2]].sum()
    with served("logits") as client:
        for query, told in (
            ({"probability": "class 9"}, "has no class 'class 9'; it has class 0, class 1,"),
            ({"probability": "7"}, "has no class '7'"),
            ({"planes": ","}, "planes: name classes of the model"),
            ({"probability": "winner", "bits": "12"}, "bits"),
            ({"probability": "all", "accept": "image/png"}, "application/json"),
            ({"probability": "winner", "overlay": "true", "mask": "rle"}, "No answer has all of"),
        ):
            refused = ask(client, photo(), **query)
            assert refused.status_code in {400, 406}
            assert told in refused.json()["detail"]


def adopted_again(folder: Path) -> Path:
    (folder / "again").mkdir()
    return adopted(CASES["logits"], folder / "again")


def test_a_file_of_an_earlier_version_has_probabilities_where_they_can_be_told(
    tmp_path: Path, serving: Callable[..., Any]
) -> None:
    for name, told in (("logits", True), ("one probability", True), ("softmax inside", False)):
        (tmp_path / name).mkdir()
        path = adopted(CASES[name], tmp_path / name)
        model = onnx.load(path)
        (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
        document = json.loads(entry.value)
        document.pop("scores", None)
        entry.value = json.dumps(document)
        onnx.save(model, path)
        segmenter = load_segmenter(path)
        assert (
            segmenter.model.scores
            == {
                "logits": Scores(),
                "one probability": Scores("log-odds", LEVEL),
                "softmax inside": Scores("unknown"),
            }[name]
        )
        with serving(segmenter, model=[path], workers=1) as client:
            answer = ask(client, photo(), probability="winner", bits="16")
            assert (answer.status_code == 200) is told
            if told:
                truth, mask = CASES[name].truth(photo()), arrays(client, photo())["mask"]
                own = np.take_along_axis(truth, mask[None].astype(int), 0)[0]
                np.testing.assert_allclose(grey(answer.content) / 65535, own, atol=5e-5)


@pytest.fixture(scope="module", params=[300, 1000])
def many(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    serving: Callable[..., Any],
) -> Iterator[tuple[Client, Array]]:
    """A network of so many classes being served, and its mask of the photo."""
    case = Case(network(request.param, spread=20.0), softmax, {})
    path = adopted(case, tmp_path_factory.mktemp("many"))
    truth = case.truth(photo()).argmax(0)
    assert truth.max() > 255
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        yield client, truth


def test_more_than_256_classes_come_in_16_bits(many: tuple[Client, Array]) -> None:
    client, truth = many
    image = photo()
    mask = grey(ask(client, image).content)
    assert mask.dtype == np.uint16
    assert np.mean(mask != truth) < 1e-3
    found = arrays(client, image, probability="winner")
    assert found["mask"].dtype == np.uint16
    assert (found["mask"] == mask).all()
    tiled = arrays(client, image, mode="tile")["mask"]
    assert tiled.dtype == np.uint16
    assert np.mean(tiled != truth) < 1e-2
    result = ask(client, image, accept="application/json", mask="rle").json()
    (about,) = result["images"]
    for entry in about["classes"]:
        assert entry["pixels"] == (mask == entry["id"]).sum()
        counts = about["mask"]["counts"][str(entry["id"])]
        assert (from_rle(counts, about["mask"]["size"]) == (mask == entry["id"])).all()
    assert sum(entry["pixels"] for entry in about["classes"]) == mask.size
    colours = {entry["id"]: entry["color"] for entry in about["classes"]}
    overlay = cv2.imdecode(
        np.frombuffer(ask(client, image, overlay="true").content, np.uint8),
        cv2.IMREAD_COLOR_RGB,
    )
    palette = np.zeros((mask.max() + 1, 3), np.uint8)
    for index, colour in colours.items():
        palette[index] = list(bytes.fromhex(colour[1:]))
    blended = (image.astype(int) + palette[mask]) / 2
    assert np.abs(overlay - blended).max() <= 1


def test_more_than_256_classes_in_the_open_inference_protocol(many: tuple[Client, Array]) -> None:
    client, truth = many
    name = client.get("/models").json()[0]["name"]
    about = client.get(f"/v2/models/{name}").json()
    assert about["outputs"][0] == {"name": "mask", "datatype": "UINT16", "shape": [-1, -1, -1]}
    image = photo()
    question = {
        "inputs": [
            {"name": "image", "shape": [1, *image.shape], "datatype": "UINT8",
             "data": image.ravel().tolist()}
        ],
        "outputs": [{"name": "mask"}, {"name": "probability/class 7"}],
    }  # fmt: skip
    answer = client.request("POST", f"/v2/models/{name}/infer", json=question)
    assert answer.status_code == 200, answer.text
    mask, probability = answer.json()["outputs"]
    assert mask["datatype"] == "UINT16"
    found = np.array(mask["data"]).reshape(mask["shape"])[0]
    assert np.mean(found != truth) < 1e-3
    assert probability["datatype"] == "FP32"
    assert probability["shape"] == [1, *truth.shape]
