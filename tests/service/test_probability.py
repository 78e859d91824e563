"""Probabilities and planes over HTTP: judged by ONNX Runtime on the original file.

What comes back is decoded by OpenCV and NumPy; probabilities are taken by NumPy in float64 of
scores that PyTorch resized.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import torch

from ppool.client import AsyncClient, Segmentation
from ppool.export import export_model
from ppool.metadata import METADATA_KEY, LabelClass, Scores
from ppool.service.answers import MapsWanted
from ppool.service.codecs.probability import ScoreReader
from ppool.service.codecs.resizing import resized
from ppool.service.errors import TooLarge
from ppool.service.folder import Job
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import METADATA, encoded
from tests.service.soft import (
    CASES,
    LEVEL,
    SIDE,
    Array,
    Case,
    adopted,
    arrays,
    ask,
    fine,
    grey,
    network,
    photo,
    softmax,
    with_background,
)
from tests.service.test_folder import Folder


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


class Net(torch.nn.Module):
    """A convolution of stride 4, and what may stand behind it."""

    def __init__(self, channels: int, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, channels, 7, 4, 3)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(3 * self.conv(x))


@pytest.mark.parametrize(
    ("net", "read", "values"),
    [
        (Net(3, lambda y: y.softmax(1)), lambda p: p, "probabilities"),
        (Net(1, torch.sigmoid), with_background, "probabilities"),
    ],
    ids=["softmax", "sigmoid"],
)
def test_networks_of_pytorch_have_probabilities(
    net: Net, read: Callable[[Array], Array], values: str, tmp_path: Path, serving: Any
) -> None:
    channels = net.conv.out_channels
    options = {"threshold": 0.4} if channels == 1 else {}
    names = ["sky", "road", "pole"][:channels]
    path, mean, std = tmp_path / "net.onnx", (0.5,) * 3, (0.25,) * 3
    about = export_model(
        net, path, classes=names, mean=mean, std=std, multiple=32, check=False, **options
    )
    assert about.scores == Scores(values, options.get("threshold", 0.0))
    x = torch.from_numpy((photo().transpose(2, 0, 1)[None] / 255 - 0.5) / 0.25).float()
    with torch.no_grad():
        truth = read(fine(net(x).numpy(), photo().shape[:2]))
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        found = arrays(client, photo(), probability="all")
    maps = np.stack([found[key] for key in found if key.startswith("probability/")])
    np.testing.assert_allclose(maps, truth, atol=1e-3)


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
    assert "probability" not in json.loads((folder.masks / "a.png.json").read_bytes())


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


def test_names_of_classes_may_have_commas_and_occur_twice(
    tmp_path: Path, serving: Callable[..., Any]
) -> None:
    names = ("sky, clear", "road", "road", "all", "3")
    path = adopted(replace(CASES["logits"], options={"classes": names}), tmp_path)
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        for asked, found in (
            ("sky, clear", ["sky, clear"]),
            ("road (2),road (1)", ["road (2)", "road (1)"]),
            ("3", ["3"]),  # its name, not its id
            ("0,2", ["sky, clear", "road (2)"]),
            ("all", ["sky, clear", "road (1)", "road (2)", "all", "3"]),
        ):
            keys = [*arrays(client, photo(), probability=asked)]
            assert keys == ["mask", *(f"probability/{name}" for name in found)]


def test_maps_that_no_memory_holds_are_refused() -> None:
    about = replace(METADATA, classes=tuple(LabelClass(i, "", "#000000") for i in range(50)))
    wanted = MapsWanted(tuple(range(30)))
    with pytest.raises(TooLarge, match="at most 8 maps of a photo of 4000 x 4000 pixels, not 30"):
        ScoreReader(about, wanted, (4000, 4000), blended=False)
    assert len(ScoreReader(about, wanted, (40, 40), blended=False).maps.probability) == 30


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("logits", [1, 3]),
        ("softmax inside", [2]),
        ("one logit", [1]),
        ("one probability", [1]),
        ("overlapping logits", [1, 2]),
        ("one size, letterboxed", [4, 0]),
    ],
)
def test_a_cut_out_is_as_opaque_as_its_classes_are_probable(
    name: str, classes: list[int], served: Callable[[str], Any]
) -> None:
    image = photo(SIDE, SIDE) if "letterboxed" in name else photo()
    truth = CASES[name].truth(image)[classes]
    together = truth.max(0) if "overlapping" in name else truth.sum(0)
    with served(name) as client:
        answer = ask(client, image, cutout=",".join(map(str, classes)))
    assert answer.headers["content-type"] == "image/png"
    cut = grey(answer.content)
    assert cut.shape == (*image.shape[:2], 4)
    np.testing.assert_allclose(cut[..., 3], 255 * together, atol=0.6)
    assert len(np.unique(cut[..., 3])) > 50
    shows = cut[..., 3] > 0
    np.testing.assert_array_equal(cut[shows][:, 2::-1], image[shows])


def test_a_cut_out_at_full_resolution_is_soft_too(served: Callable[[str], Any]) -> None:
    with served("one logit") as client:
        answer = ask(client, photo(), cutout="1", mode="tile")
    together = CASES["one logit"].truth(photo())[1]
    np.testing.assert_allclose(grey(answer.content)[..., 3], 255 * together, atol=1)


def test_regions_of_classes_that_overlap_overlap(served: Callable[[str], Any]) -> None:
    truth = CASES["overlapping logits"].truth(photo())
    with served("overlapping logits") as client:
        found = ask(client, photo(), answers="components,polygons", accept="application/json")
        some = ask(client, photo(), answers="polygons", classes="2,1")
    (about,) = found.json()["images"]
    areas = dict.fromkeys(range(1, 5), 0)
    for component in about["components"]:
        areas[component["id"]] += component["area"]  # and none of the background
    planes = (truth[1:] > 0.5).sum((1, 2))
    np.testing.assert_allclose([*areas.values()], planes, rtol=2e-3)
    assert planes.sum() > (truth[1:] > 0.5).any(0).sum()
    assert {feature["properties"]["id"] for feature in some.json()["features"]} == {1, 2}
