"""``POST /segment``: every way to ask and every kind of answer."""

import base64
import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from ppool.service.results import SegmentReply
from ppool.service.workers.inference import Segmenter
from tests.service.harness import METADATA, Client, encoded, photo

JSON, NPZ, ZIP = "application/json", "application/x-npz", "application/zip"


def outputs_of(segmenter: Segmenter, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The model's own outputs for a photo within its input policy, padded by hand."""
    height, width = pixels.shape[:2]
    bottom, right = -height % 16, -width % 16
    padded = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), "edge")
    names = ["mask", *(stage.output for stage in METADATA.stages)]
    values = segmenter.session.run(names, {"image": padded[None]})
    outputs = {name: value[0] for name, value in zip(names, values, strict=True)}
    outputs["mask"] = outputs["mask"][:height, :width]
    for stage in METADATA.stages:
        rows, columns = -(-height // stage.stride), -(-width // stage.stride)
        outputs[stage.output] = outputs[stage.output][:, :rows, :columns]
    return outputs


def png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def test_the_mask_is_a_palette_png_of_class_ids(client: Client, segmenter: Segmenter) -> None:
    answer = client.segment(encoded(photo()))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    mask = png(answer.content)
    assert mask.mode == "P"
    assert mask.getpalette()[:9] == [0x20, 0x20, 0x20, 0xC0, 0x30, 0x30, 0xF0, 0xF0, 0xF0]
    expected = outputs_of(segmenter, photo())["mask"]
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(np.asarray(mask), expected)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 77), (129, 128), (700, 33), (513, 401)])
def test_the_mask_has_the_photos_own_size(client: Client, width: int, height: int) -> None:
    assert png(client.segment(encoded(photo(width, height))).content).size == (width, height)


def test_a_large_photos_mask_is_where_the_photo_is(client: Client) -> None:
    halves = np.zeros((600, 900, 3), np.uint8)
    halves[:, 450:] = 255
    mask = np.asarray(png(client.segment(encoded(halves)).content))
    assert (mask[:, :440] == 0).all()
    assert (mask[:, 460:] == 2).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_mask_is_upright(client: Client, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (60, 40) if orientation < 5 else (40, 60)
    mask = png(client.segment(encoded(photo(), "JPEG", exif=exif)).content)
    assert mask.size == size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_accepted_type_is_segmented(client: Client, kind: str) -> None:
    body = encoded(photo(), kind)
    answer = client.segment(body, headers={"Content-Type": f"image/{kind.lower()}"})
    assert answer.status_code == 200


def test_headers_name_the_request_the_model_and_the_time(client: Client) -> None:
    answer = client.segment(encoded(photo()), headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-model"] == "tiny"
    stages = [entry.split(";dur=") for entry in answer.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["decode", "queue", "infer", "encode"]
    assert all(float(duration) >= 0 for _, duration in stages)


def test_a_request_id_is_made_when_missing_or_hostile(client: Client) -> None:
    made = [
        client.segment(encoded(photo()), headers=headers).headers["x-request-id"]
        for headers in ({}, {"X-Request-Id": "a b\tc"}, {"X-Request-Id": "x" * 200})
    ]
    assert len(set(made)) == 3
    assert all(len(value) == 32 for value in made)


def test_json_tells_the_classes_present(client: Client, segmenter: Segmenter) -> None:
    pixels = photo()
    answer = client.segment(encoded(pixels), accept=JSON)
    assert answer.headers["content-type"] == JSON
    (result,) = answer.json()["images"]
    mask = outputs_of(segmenter, pixels)["mask"]
    assert (result["width"], result["height"], result["model"]) == (60, 40, "tiny")
    assert [entry["pixels"] for entry in result["classes"]] == np.bincount(mask.ravel()).tolist()
    assert sum(entry["fraction"] for entry in result["classes"]) == pytest.approx(1, abs=1e-5)
    assert result["classes"][1] | {"pixels": 0, "fraction": 0} == {
        "id": 1,
        "name": "middle",
        "color": "#c03030",
        "pixels": 0,
        "fraction": 0,
    }
    assert result["mask"]["encoding"] == "png"
    np.testing.assert_array_equal(np.asarray(png(base64.b64decode(result["mask"]["data"]))), mask)
    assert result["alpha"] is None
    assert set(result["timing_ms"]) == {"decode", "queue", "infer", "encode"}


def test_json_leaves_out_absent_classes(client: Client) -> None:
    black = np.zeros((20, 20, 3), np.uint8)
    (result,) = client.segment(encoded(black), accept=JSON).json()["images"]
    assert [entry["name"] for entry in result["classes"]] == ["dark"]


@pytest.mark.parametrize("query", ["", "?alpha=maps", "?mask=rle"])
def test_json_is_what_the_schema_says(client: Client, query: str) -> None:
    document = client.segment(encoded(photo()), query, accept=JSON).content
    reply = TypeAdapter(SegmentReply).validate_json(document, strict=True)
    assert orjson.loads(orjson.dumps(reply)) == orjson.loads(document)


def test_run_lengths_replace_the_png(client: Client) -> None:
    black = np.zeros((20, 30, 3), np.uint8)
    answer = client.segment(encoded(black), "?mask=rle", accept=JSON)
    (result,) = answer.json()["images"]
    assert result["mask"] == {"encoding": "coco_rle", "size": [20, 30], "counts": {"0": "0hb0"}}


def test_alpha_maps_summarise_every_stage(client: Client, segmenter: Segmenter) -> None:
    pixels = photo(50, 37)
    (result,) = client.segment(encoded(pixels), "?alpha=maps").json()["images"]
    outputs = outputs_of(segmenter, pixels)
    assert [entry["stage"] for entry in result["alpha"]] == ["pool1", "pool2"]
    for entry, stage in zip(result["alpha"], METADATA.stages, strict=True):
        expected = outputs[stage.output].astype(np.float64)
        assert entry["shape"] == list(expected.shape)
        assert entry["min"] == pytest.approx(expected.min())
        assert entry["max"] == pytest.approx(expected.max())
        assert entry["mean"] == pytest.approx(expected.mean())
        assert entry["channel_mean"] == pytest.approx(expected.mean(axis=(1, 2)).tolist())
        picture = png(base64.b64decode(entry["map"]))
        assert picture.mode == "L"
        span = entry["map_max"] - entry["map_min"]
        shown = entry["map_min"] + np.asarray(picture) / 255 * span
        np.testing.assert_allclose(shown, expected.mean(axis=0), atol=span / 255)


def test_asking_for_alpha_never_changes_the_mask(client: Client) -> None:
    body = encoded(photo(300, 200))
    masks = [
        client.segment(body, query, accept=JSON).json()["images"][0]["mask"]
        for query in ("", "?alpha=maps")
    ]
    assert masks[0] == masks[1]


def test_npz_carries_the_mask_alone_unless_asked_for_more(
    client: Client, segmenter: Segmenter
) -> None:
    pixels = photo(50, 37)
    outputs = outputs_of(segmenter, pixels)
    for query, names in (("", {"mask"}), ("?alpha=full", {"mask", "alpha/pool1", "alpha/pool2"})):
        answer = client.segment(encoded(pixels), query, accept=NPZ)
        assert answer.headers["content-type"] == NPZ
        with np.load(io.BytesIO(answer.content)) as arrays:
            assert set(arrays) == names
            np.testing.assert_array_equal(arrays["mask"], outputs["mask"])
            for name in names - {"mask"}:
                assert arrays[name].dtype == np.float16
                np.testing.assert_array_equal(arrays[name], outputs[name].astype(np.float16))


def test_the_overlay_blends_the_class_colours_over_the_photo(
    client: Client, segmenter: Segmenter
) -> None:
    pixels = photo()
    answer = client.segment(encoded(pixels), "?overlay=true")
    palette = np.array([label.rgb for label in METADATA.classes])
    expected = (pixels + palette[outputs_of(segmenter, pixels)["mask"]]) / 2
    np.testing.assert_allclose(np.asarray(png(answer.content)), expected, atol=1)


def test_the_overlay_of_a_large_photo_fits_its_mask(client: Client) -> None:
    pixels = photo(400, 300)
    body = encoded(pixels)
    mask = np.asarray(png(client.segment(body).content))
    overlay = np.asarray(png(client.segment(body, "?overlay=1").content))
    palette = np.array([label.rgb for label in METADATA.classes])
    np.testing.assert_allclose(overlay, (pixels + palette[mask]) / 2, atol=1)


def test_several_images_come_back_as_a_zip(client: Client) -> None:
    bodies = [encoded(photo(seed=seed)) for seed in (1, 2)]
    parts = [("image", ("a b.png", bodies[0])), ("image", ("../c.jpeg", bodies[1]))]
    answer = client.segment(files=parts)
    assert answer.headers["content-type"] == ZIP
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["001-a_b.png", "002-_c.png", "result.json"]
        for name, body in zip(archive.namelist(), bodies, strict=False):
            assert archive.read(name) == client.segment(body).content
        results = orjson.loads(archive.read("result.json"))["images"]
    assert [result["name"] for result in results] == ["a b.png", "../c.jpeg"]
    assert [result["mask"] for result in results] == [None, None]


def test_a_zip_with_full_alpha_has_arrays_beside_the_pictures(client: Client) -> None:
    answer = client.segment(encoded(photo()), "?alpha=full", accept=ZIP)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["001-image.png", "001-image.npz", "result.json"]


def test_several_images_come_back_as_json_in_order(client: Client) -> None:
    parts = [("image", (f"{side}.png", encoded(photo(side, side)))) for side in (90, 20, 50)]
    results = client.segment(files=parts, accept=JSON).json()["images"]
    assert [result["width"] for result in results] == [90, 20, 50]


def test_one_multipart_image_is_answered_as_a_raw_one(client: Client) -> None:
    body = encoded(photo())
    assert client.segment(files={"image": ("x.png", body)}).content == client.segment(body).content


@pytest.mark.parametrize(
    ("query", "accept", "media"),
    [
        ("", "*/*", "image/png"),
        ("", "image/*", "image/png"),
        ("", "text/html, */*;q=0.8", "image/png"),
        ("", "application/*", JSON),
        ("", NPZ, NPZ),
        ("", ZIP, ZIP),
        ("?alpha=maps", "*/*", JSON),
        ("?alpha=full", "*/*", NPZ),
        ("?mask=rle", "*/*", JSON),
        ("?overlay=true", "*/*", "image/png"),
        ("?overlay=true", ZIP, ZIP),
    ],
)
def test_the_default_answer_can_carry_what_is_asked(
    client: Client, query: str, accept: str, media: str
) -> None:
    answer = client.segment(encoded(photo()), query, accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("lines", "media"),
    [
        (["text/html", JSON], JSON),
        (["image/png;q=0.5", f"{JSON};q=0.6"], JSON),
        (["image/png;q=0.5, */*;q=0.1", f"{JSON};q=0.4"], "image/png"),
        (["text/html", "", "*/*;q=0.1"], "image/png"),
        ([f"{JSON};q=nan", "image/png;q=0.1"], "image/png"),
        ([f"{JSON};q=2", "image/png;q=.5"], "image/png"),
    ],
)
def test_several_lines_of_accept_are_one_list(client: Client, lines: list[str], media: str) -> None:
    headers = [("Accept", line) for line in lines]
    answer = client.request("POST", "/segment", content=encoded(photo()), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)


@pytest.mark.parametrize(
    ("query", "accept"),
    [("", "text/html"), ("?alpha=maps", "image/png"), ("?alpha=full", JSON), ("?mask=rle", NPZ)],
)
def test_an_answer_that_cannot_be_is_not_acceptable(
    client: Client, query: str, accept: str
) -> None:
    answer = client.segment(encoded(photo()), query, accept=accept)
    assert answer.status_code == 406
    assert accept not in answer.json()["available"]
    assert accept in answer.json()["detail"]


def test_the_same_image_gives_the_same_bytes_among_any_neighbours(
    serving: Callable[..., Any],
) -> None:
    """Bit for bit, alone and in batches of up to eight of mixed photos."""
    sizes = [(60, 40), (64, 48), (50, 33), (300, 200), (128, 128), (17, 90)]
    bodies = [encoded(photo(*sizes[seed % 6], seed=seed)) for seed in range(48)]
    query = "/segment?alpha=full"
    with serving(max_batch_size=1) as alone:
        expected = [alone.segment(body, "?alpha=full").content for body in bodies]
    with serving(max_batch_size=8, workers=1) as client:
        for _ in range(3):
            pending = [client.start("POST", query, content=body) for body in bodies]
            assert [answer.result().content for answer in pending] == expected
        assert client.metric('ppool_batch_size_sum{model="tiny"}') == 3 * len(bodies)
        assert client.metric('ppool_batch_size_count{model="tiny"}') < 3 * len(bodies)


def test_tiles_have_no_alpha_maps(client: Client) -> None:
    answer = client.segment(encoded(photo()), "?mode=tile&alpha=maps", accept=JSON)
    assert answer.status_code == 400
    assert "leave one" in answer.json()["detail"]


def test_a_model_without_logits_says_that_it_cannot_tile(client: Client) -> None:
    answer = client.segment(encoded(photo(400, 300)), "?mode=tile")
    assert answer.status_code == 400
    assert "offers no logits" in answer.json()["detail"]
    assert client.get("/models/tiny").json()["modes"] == ["resize"]


def test_a_page_is_chosen_and_the_answer_says_how_many_there_are(client: Client) -> None:
    pages = [photo(40, 30), photo(50, 20, seed=1)]
    first, second = map(Image.fromarray, pages)
    data = encoded(first, "TIFF", save_all=True, append_images=[second])
    for number, pixels in enumerate(pages, 1):
        answer = client.segment(data, f"?page={number}")
        assert answer.headers["X-Pages"] == "2"
        assert answer.content == client.segment(encoded(pixels)).content
        overlay = client.segment(data, f"?page={number}&overlay=true")
        assert overlay.content == client.segment(encoded(pixels), "?overlay=true").content
    found = client.segment(data, "?page=2", accept="application/json").json()["images"][0]
    assert (found["pages"], found["width"], found["height"]) == (2, 50, 20)
    refused = client.segment(data, "?page=3")
    assert refused.status_code == 400
    assert "Ask for a page from 1 to 2" in refused.json()["detail"]
    assert "X-Pages" not in client.segment(encoded(pages[0])).headers
    assert client.segment(data, "?page=0").status_code == 400
