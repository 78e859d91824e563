"""Chosen classes, cut-outs, polygons, components, COCO and several answers at once, over HTTP."""

import io
import json
import zipfile
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import shapely
import shapely.geometry
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pydantic import TypeAdapter
from scipy import ndimage

from ppool.client import AsyncClient
from ppool.metadata import LabelClass
from ppool.service.codecs.encoding import only
from ppool.service.codecs.shapes import regions
from ppool.service.results import FeatureCollection, SegmentReply
from tests.service.harness import METADATA, Client, encoded, photo

JSON, GEOJSON, ZIP = "application/json", "application/geo+json", "application/zip"
NAMES = [label.name for label in METADATA.classes]
PHOTO = photo(120, 90)
# pycocotools 2.0.11 on NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def mask(client: Client) -> NDArray[np.uint8]:
    """What the service says the mask is; it is judged elsewhere."""
    found = np.asarray(opened(client.segment(encoded(PHOTO)).content))
    assert set(np.unique(found)) == {0, 1, 2}
    return found


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def ask(client: Client, accept: str = "*/*", body: bytes = b"", **query: Any) -> Any:
    answer = client.segment(body or encoded(PHOTO), accept=accept, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def refused(client: Client, accept: str = "*/*", **query: Any) -> str:
    answer = client.segment(encoded(PHOTO), accept=accept, params=query)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["detail"])


def files(answer: Any) -> dict[str, bytes]:
    assert answer.headers["content-type"] == ZIP
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def rasterised(collection: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mask again: each pixel's class by OpenCV's rasteriser, 255 where there is none.

    OpenCV fills what a polygon's edge touches, in pixels whose centres are whole numbers; at 16
    times the size, an edge is too thin to matter.
    """
    result = np.full(shape, 255, np.uint8)
    for feature in collection["features"]:
        plane = np.zeros((shape[0] * 16, shape[1] * 16), np.uint8)
        rings = [np.rint(np.array(ring) * 16 - 0.5).astype(np.int32) for ring in
                 feature["geometry"]["coordinates"]]  # fmt: skip
        cv2.fillPoly(plane, rings, 1)
        result[plane[8::16, 8::16] == 1] = feature["properties"]["id"]
    return result


@pytest.mark.parametrize("tolerance", [0, 1])
def test_polygons_are_features_that_agree_with_the_mask(
    client: Client, mask: NDArray[np.uint8], tolerance: float
) -> None:
    answer = ask(client, answers="polygons", tolerance=tolerance)
    assert answer.headers["content-type"] == GEOJSON
    TypeAdapter(FeatureCollection).validate_json(answer.content)
    collection = answer.json()
    agreement = (rasterised(collection, mask.shape) == mask).mean()
    assert agreement == 1 if tolerance == 0 else agreement >= 0.99
    for feature in collection["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.exterior.is_ccw
        label = METADATA.classes[feature["properties"]["id"]]
        assert feature["properties"]["name"] == label.name
        assert feature["properties"]["color"] == label.color
        if tolerance == 0:
            assert shape.area == feature["properties"]["area"]
            assert list(shape.bounds) == feature["bbox"]
    count = sum(ndimage.label(mask == number)[1] for number in range(3))
    assert len(collection["features"]) == count


def test_components_are_those_of_scipy(client: Client, mask: NDArray[np.uint8]) -> None:
    (found,) = ask(client, JSON, answers="components").json()["images"]
    assert found["mask"] is None
    expected = []
    for number, name in enumerate(NAMES):
        labels, _ = ndimage.label(mask == number)
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            area = int((labels == index).sum())
            expected.append({"id": number, "name": name, "area": area, "bbox": box})
    assert len(expected) > 3
    assert sorted(found["components"], key=str) == sorted(expected, key=str)


def test_json_carries_several_answers(client: Client, mask: NDArray[np.uint8]) -> None:
    answer = ask(client, JSON, answers="mask,components,polygons", mask="rle", tolerance=0)
    TypeAdapter(SegmentReply).validate_json(answer.content)
    (found,) = answer.json()["images"]
    assert set(found["mask"]["counts"]) == {"0", "1", "2"}
    assert len(found["components"]) == len(found["polygons"]["features"])
    np.testing.assert_array_equal(rasterised(found["polygons"], mask.shape), mask)


def loaded(content: bytes) -> COCO:
    """As pycocotools does, from a file."""
    data = COCO()
    data.dataset = json.loads(content)
    data.createIndex()
    return data


@pytest.mark.parametrize(("tolerance", "least"), [(0, 1.0), (1, 0.99)])
def test_pycocotools_reads_the_annotations(
    client: Client, mask: NDArray[np.uint8], tolerance: float, least: float
) -> None:
    data = loaded(ask(client, JSON, answers="coco", tolerance=tolerance).content)
    assert [category["name"] for category in data.loadCats(data.getCatIds())] == NAMES
    (about,) = data.loadImgs(data.getImgIds())
    assert (about["file_name"], about["height"], about["width"]) == ("image", *mask.shape)
    again = np.full(mask.shape, 255, np.uint8)
    kinds = set()
    for annotation in data.loadAnns(data.getAnnIds()):
        own = data.annToMask(annotation).astype(bool)
        kinds.add(type(annotation["segmentation"]))
        again[own] = annotation["category_id"]
        if tolerance == 0 or isinstance(annotation["segmentation"], dict):
            assert own.sum() == annotation["area"]
            left, top, width, height = annotation["bbox"]
            assert own[top : top + height, left : left + width].sum() == own.sum()
    assert kinds == {list, dict}  # a COCO polygon has no holes
    assert (again == mask).mean() >= least


def test_pycocotools_reads_the_run_lengths(client: Client, mask: NDArray[np.uint8]) -> None:
    found = ask(client, JSON, mask="rle").json()["images"][0]["mask"]
    assert set(found["counts"]) == {"0", "1", "2"}
    for label, counts in found["counts"].items():
        plane = coco_mask.decode({"size": found["size"], "counts": counts.encode()})
        np.testing.assert_array_equal(plane, mask == int(label))
        theirs = coco_mask.encode(np.asfortranarray(mask == int(label), np.uint8))
        assert theirs["counts"].decode() == counts


@pytest.mark.parametrize("chosen", [["middle"], ["bright", "dark"], NAMES])
def test_only_the_chosen_classes_are_left(
    client: Client, mask: NDArray[np.uint8], chosen: list[str]
) -> None:
    ids = [NAMES.index(name) for name in chosen]
    asked = {"classes": ",".join(chosen)}
    expected = np.where(np.isin(mask, ids), mask, 255)
    image = opened(ask(client, **asked).content)
    np.testing.assert_array_equal(np.asarray(image), expected)
    # What is of no class is clear where the file is shown.
    shown = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(shown[..., 3], np.where(expected == 255, 0, 255))
    overlay = np.asarray(opened(ask(client, overlay="true", **asked).content))
    whole = np.asarray(opened(ask(client, overlay="true").content))
    np.testing.assert_array_equal(overlay, np.where((expected == 255)[..., None], PHOTO, whole))
    (found,) = ask(client, JSON, mask="rle", **asked).json()["images"]
    assert set(found["mask"]["counts"]) == set(map(str, ids))
    assert {area["name"]: area["pixels"] for area in found["classes"]} == {
        NAMES[number]: int((mask == number).sum()) for number in sorted(ids)
    }
    polygons = ask(client, answers="polygons", tolerance=0, **asked).json()
    np.testing.assert_array_equal(rasterised(polygons, mask.shape), expected)
    with np.load(io.BytesIO(ask(client, "application/x-npz", **asked).content)) as arrays:
        np.testing.assert_array_equal(arrays["mask"], expected)


@pytest.mark.parametrize("option", ["classes", "cutout"])
def test_an_unknown_class_is_refused_with_those_there_are(client: Client, option: str) -> None:
    said = refused(client, **{option: "middle,cats"})
    assert said.startswith(f"{option}: ")
    assert "'cats'" in said
    assert "dark, middle, bright" in said


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"answers": "mask,outline"}, "expected some of mask, overlay, cutout, polygons"),
        ({"answers": ""}, "expected some of mask"),
        ({"answers": "cutout"}, "cutout=NAMES"),
        ({"answers": "probability,mask"}, "probability=NAMES"),
        ({"tolerance": "-1"}, "tolerance: "),
        ({"tolerance": "nan"}, "tolerance: "),
        ({"classes": ""}, "classes: name classes"),
        ({"answers": "polygons,cutout", "cutout": "dark", "mask": "rle"}, "No answer has all of"),
    ],
)
def test_what_cannot_be_answered_is_said(client: Client, query: dict[str, str], said: str) -> None:
    assert said in refused(client, **query)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_cut_out_keeps_the_classes_the_profile_and_the_upright_photo(
    client: Client, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack((PHOTO, np.tile(np.linspace(0, 255, 120).astype(np.uint8), (90, 1))))
    body = encoded(Image.fromarray(rgba), exif=exif, icc_profile=PROFILE)
    mask = np.asarray(opened(ask(client, body=body).content))
    answer = ask(client, f"image/{kind}", body, cutout="middle,bright")
    assert answer.headers["content-type"] == f"image/{kind}"
    cut = opened(answer.content)
    assert (cut.format, cut.mode, cut.size) == (kind.upper(), "RGBA", (90, 120))
    assert cut.info["icc_profile"] == PROFILE
    assert 0x0112 not in cut.getexif()
    upright = Image.fromarray(rgba).transpose(Image.Transpose.ROTATE_270)
    alpha = np.where(np.isin(mask, (1, 2)), np.asarray(upright)[..., 3], 0)
    np.testing.assert_array_equal(np.asarray(cut)[..., 3], alpha)
    assert 0 < (alpha > 0).mean() < 1
    if kind == "png":
        np.testing.assert_array_equal(
            np.asarray(cut)[alpha > 0][:, :3], np.asarray(upright)[alpha > 0][:, :3]
        )


@pytest.mark.parametrize(("kind", "most"), [("jpeg", 4), ("webp", 6)])
def test_an_overlay_is_a_jpeg_or_webp_on_request(client: Client, kind: str, most: float) -> None:
    exact = np.asarray(opened(ask(client, overlay="true").content)).astype(int)
    answer = ask(client, f"image/{kind}", overlay="true")
    assert answer.headers["content-type"] == f"image/{kind}"
    assert answer.headers["vary"] == "Accept"
    image = opened(answer.content)
    assert (image.format, image.size) == (kind.upper(), (120, 90))
    assert np.abs(np.asarray(image) - exact).mean() < most
    assert client.segment(encoded(PHOTO), accept="image/jpeg").status_code == 406


def test_several_answers_are_a_zip_whose_names_speak(
    client: Client, mask: NDArray[np.uint8]
) -> None:
    asked = "mask,overlay,cutout,polygons,components,coco,planes"
    answer = ask(client, answers=asked, cutout="bright", planes="dark", tolerance=0)
    found = files(answer)
    assert list(found) == [
        "001-image.mask.png",
        "001-image.overlay.png",
        "001-image.cutout.png",
        "001-image.planes.plane-0-dark.png",
        "001-image.polygons.geojson",
        "coco.json",
        "result.json",
    ]
    np.testing.assert_array_equal(np.asarray(opened(found["001-image.mask.png"])), mask)
    overlay = ask(client, overlay="true").content
    assert found["001-image.overlay.png"] == overlay
    assert found["001-image.cutout.png"] == ask(client, cutout="bright").content
    (about,) = json.loads(found["result.json"])["images"]
    assert about["polygons"] is None
    assert len(about["components"]) >= len(loaded(found["coco.json"]).anns)


def test_several_photos_have_one_coco_file(client: Client) -> None:
    parts = [("image", (f"{name}.png", encoded(photo(seed=seed)), "image/png"))
             for seed, name in enumerate(("first", "second"))]  # fmt: skip
    query = {"answers": "coco,mask"}
    found = files(client.segment(files=parts, params=query))
    assert list(found) == ["001-first.mask.png", "002-second.mask.png", "coco.json", "result.json"]
    data = loaded(found["coco.json"])
    assert [entry["file_name"] for entry in data.dataset["images"]] == ["first.png", "second.png"]
    for number, name in ((1, "001-first"), (2, "002-second")):
        mask = np.asarray(opened(found[f"{name}.mask.png"]))
        again = np.full(mask.shape, 255)
        for annotation in data.loadAnns(data.getAnnIds(imgIds=[number])):
            again[data.annToMask(annotation) == 1] = annotation["category_id"]
        assert (again == mask).mean() > 0.98
    alone = client.segment(files=parts, params={"answers": "coco"}, accept=JSON)
    assert len(loaded(alone.content).imgs) == 2


def test_noise_is_no_reason_to_hold_a_worker_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppool.service.codecs.outlines._MOST_REGIONS", 0)
    answer = client.segment(encoded(PHOTO), "?answers=polygons")
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("Ask for the mask as run lengths")


def test_of_256_classes_what_is_none_is_told_from_them() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    some = only(mask, [0, 255], 256)
    assert some.dtype == np.uint16
    np.testing.assert_array_equal(some, np.where(np.isin(mask, (0, 255)), mask, np.uint16(65535)))
    assert only(np.minimum(mask, 254), [3], 255).dtype == np.uint8


def test_a_background_has_no_polygons_unless_it_is_asked_for() -> None:
    classes = (LabelClass(0, "Background", "#000000"), LabelClass(1, "cat", "#ffffff"))
    mask = np.eye(4, dtype=np.uint8)
    assert [label.id for label, _ in regions(mask, {}, classes, None)] == [1]
    assert [label.id for label, _ in regions(mask, {}, classes, (0,))] == [0]


def test_the_client_has_cut_outs_regions_and_chosen_classes(
    client: Client, mask: NDArray[np.uint8]
) -> None:
    async def found() -> tuple[bytes, Any, Any, Any]:
        transport = httpx.ASGITransport(client.app)
        async with AsyncClient("http://test", transport=transport) as ours:
            return (
                await ours.cutout(encoded(PHOTO), ["middle", "bright"], kind="webp"),
                await ours.polygons(encoded(PHOTO), classes="dark", tolerance=0),
                await ours.segment(encoded(PHOTO), classes=["dark"]),
                await ours.components(encoded(PHOTO), classes=["dark"]),
            )

    cut, polygons, segmentation, components = client.portal.call(found)
    assert opened(cut).format == "WEBP"
    np.testing.assert_array_equal(np.asarray(opened(cut))[..., 3] > 0, mask > 0)
    expected = np.where(mask == 0, 0, 255)
    np.testing.assert_array_equal(rasterised(polygons, mask.shape), expected)
    np.testing.assert_array_equal(segmentation.mask, expected)
    (reply,) = ask(client, JSON, answers="components", classes="dark").json()["images"]
    assert components == reply["components"]
    assert sum(region["area"] for region in components) == (mask == 0).sum()
