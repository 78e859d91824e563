"""Pre-labelling for Label Studio: its requests, photos from a stand-in for it, regions decoded."""

import base64
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from ppool.service.workers.inference import load_segmenter
from tests.service import soft
from tests.service.harness import Client, encoded, photo
from tests.service.test_brush import decoded
from tests.service.test_segment import png

PHOTO = encoded(photo(60, 40))
CONFIG = """
<View>
  <!-- as the editor writes it -->
  <Image name="image" value="$picture" zoom="true"/>
  <{tag} name="tag" toName="image">
    <Label value="Bright" background="#ff0000"/>
    <Label value="shadow" predicted_values="dark, black"/>
    <Label value="other"/>
  </{tag}>
</View>
"""
BRUSH, POLYGONS = CONFIG.format(tag="BrushLabels"), CONFIG.format(tag="PolygonLabels")


class Studio(BaseHTTPRequestHandler):
    """Serves one photo to who shows the key, and sends others elsewhere."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization")
        self.asked.append((self.path, shown))
        if self.path == "/data/away.png":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
        elif self.path == "/data/near.png":
            self.send_response(302)
            self.send_header("Location", "/data/upload/1/photo.png")
            self.end_headers()
        elif shown not in {"Token legacy", "Bearer access"}:
            self.send_error(401)
        elif self.path == "/data/large.png":
            self.answer(bytes(200_000))
        else:
            self.answer(PHOTO)

    def do_POST(self) -> None:
        given = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, given["refresh"]))
        self.answer(orjson.dumps({"access": "access"}))

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def studio() -> Iterator[ThreadingHTTPServer]:
    Studio.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Studio) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(studio: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{studio.server_port}"


@pytest.fixture(scope="module")
def client(serving: Callable[..., Any], studio: ThreadingHTTPServer) -> Iterator[Client]:
    settings = {"label_studio_key": "legacy", "max_body_bytes": 100_000}
    with serving(label_studio_url=address(studio), **settings) as client:
        yield client


def predict(client: Client, *places: object, config: str = BRUSH, **more: Any) -> Any:
    tasks = [{"id": 1, "data": {"picture": place}, "annotations": []} for place in places]
    asked = {"tasks": tasks, "label_config": config, "project": "1.17", "params": {}} | more
    return client.request("POST", "/label-studio/predict", json=asked)


def regions(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    found: list[dict[str, Any]] = result["result"]
    return found


@pytest.fixture(scope="module")
def mask(client: Client) -> NDArray[np.uint8]:
    return np.asarray(png(client.segment(PHOTO).content))


def test_it_is_up_and_names_the_version(client: Client) -> None:
    for path in ("/label-studio/health", "/label-studio/"):
        assert client.get(path).json()["status"] == "UP"
    asked = {"project": "1.17", "schema": BRUSH, "hostname": "http://localhost:8080"}
    answer = client.request("POST", "/label-studio/setup", json=asked)
    version = answer.json()["model_version"]
    assert version.startswith("tiny-")
    predicted = predict(client, "data:image/png;base64," + base64.b64encode(PHOTO).decode())
    assert predicted.json()["model_version"] == version
    hook = client.request("POST", "/label-studio/webhook", json={"action": "ANNOTATION_CREATED"})
    assert hook.status_code == 200


def test_brush_regions_are_the_masks_of_the_classes(
    client: Client, mask: NDArray[np.uint8]
) -> None:
    found = regions(predict(client, "/data/upload/1/photo.png"))
    assert Studio.asked[-1] == ("/data/upload/1/photo.png", "Token legacy")
    labels = {region["value"]["brushlabels"][0]: region for region in found}
    assert sorted(labels) == ["Bright", "shadow"]
    for label, number in (("Bright", 2), ("shadow", 0)):
        region = labels[label]
        assert (region["type"], region["from_name"], region["to_name"]) == (
            *("brushlabels", "tag", "image"),
        )
        assert (region["original_width"], region["original_height"]) == (60, 40)
        assert region["value"]["format"] == "rle"
        assert "score" not in region  # this model does not tell
        plane = decoded(bytes(region["value"]["rle"])).reshape(40, 60, 4)
        np.testing.assert_array_equal(plane[..., 3] > 0, mask == number)


def test_polygons_are_in_percent_and_cover_the_classes(
    client: Client, mask: NDArray[np.uint8]
) -> None:
    found = regions(predict(client, "/data/upload/1/photo.png", config=POLYGONS))
    for label, number in (("Bright", 2), ("shadow", 0)):
        covered = np.zeros(mask.shape, bool)
        for region in found:
            if region["value"]["polygonlabels"] == [label]:
                assert region["type"] == "polygonlabels"
                points = np.array(region["value"]["points"])
                assert (points >= 0).all()
                assert (points <= 100).all()
                corners = points[:, ::-1] / 100 * mask.shape - 0.5
                covered |= polygon2mask(mask.shape, corners)
        assert (covered == (mask == number)).mean() > 0.95


@pytest.mark.parametrize("config", [BRUSH, POLYGONS])
@pytest.mark.parametrize("name", ["overlapping logits", "logits"])
def test_regions_have_as_their_score_how_probable_their_class_is_there(
    name: str, config: str, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    image = soft.photo()
    truth = soft.CASES[name].truth(image)
    path = soft.adopted(soft.CASES[name], tmp_path)
    segmenter = load_segmenter(path)
    names = [label.name for label in segmenter.model.classes]
    labels = "".join(f'<Label value="{label}"/>' for label in names)
    tags = re.sub(r"(?s)<Label .*/>", labels, config)
    with serving(segmenter, model=[path], workers=1, label_studio_url="http://none") as client:
        data = "data:image/png;base64," + base64.b64encode(encoded(image)).decode()
        answer = predict(client, data, config=tags)
    (prediction,) = answer.json()["results"]
    found = regions(answer)
    kind = found[0]["type"]
    scores = {region["value"][kind][0]: region["score"] for region in found}
    if name == "logits":
        planes = [truth.argmax(0) == index for index in range(len(names))]
    else:
        planes = [~(truth[1:] > 0.5).any(0), *(truth[1:] > 0.5)]
    assert set(scores) == {label for label, plane in zip(names, planes, strict=True) if plane.any()}
    for label, plane, values in zip(names, planes, truth, strict=True):
        if plane.any():
            assert scores[label] == pytest.approx(values[plane].mean(), abs=0.01)
    assert prediction["score"] == pytest.approx(np.mean([region["score"] for region in found]))


def test_photos_come_from_the_task_or_from_where_the_settings_allow(
    client: Client, studio: ThreadingHTTPServer
) -> None:
    jpeg = base64.b64encode(encoded(photo(60, 40), "JPEG")).decode()
    assert jpeg.startswith("/9j/")
    places = [
        *("/data/upload/1/photo.png", f"{address(studio)}/data/1.png", "/data/near.png"),
        *(jpeg, f"data:image/jpeg;base64,{jpeg}", base64.b64encode(PHOTO).decode()),
    ]
    results = predict(client, *places).json()["results"]
    sizes = {region["original_width"] for result in results for region in result["result"]}
    assert (len(results), sizes) == (6, {60})


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("http://169.254.169.254/latest/meta-data", "not fetched from 'http://169.254.169.254:80'"),
        ("file:///etc/passwd", "not fetched from"),
        ("s3://bucket/photo.png", "not fetched from"),
        ("//169.254.169.254/x", "Give a photo as"),
        ("http://127.0.0.1:1/x", "not fetched from"),
        ("http://127.0.0.1:99999/x", "address of a photo is none"),
        ("/data/away.png", "does not name"),
        ("/data/large.png", "at most 100000 bytes"),
        ("no photo", "Give a photo as"),
        ("data:image/png,abc", "as base64"),
        ("data:image/png;base64,####", "Give a photo as"),
        (base64.b64encode(b"no photo at all").decode(), "Send a JPEG"),
        (7, "needs its photo under 'picture'"),
        (None, "needs its photo under 'picture'"),
    ],
)
def test_a_photo_that_cannot_be_had_is_said(client: Client, place: object, message: str) -> None:
    answer = predict(client, place)
    assert 400 <= answer.status_code < 500, answer.text
    assert message in answer.json()["detail"], answer.text
    both = predict(client, place, "/data/upload/1/photo.png").json()["results"]
    assert message in both[0]["error"]
    assert both[1]["result"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("<View/>", "needs <BrushLabels> or <PolygonLabels>"),
        (BRUSH.replace("Bright", "x").replace("dark, black", "y"), "dark, middle, bright"),
        (BRUSH.replace('toName="image"', 'toName="other"'), "needs <BrushLabels>"),
        ("<View>", "line 1 is no XML"),
        (f'<!DOCTYPE a [<!ENTITY b "c">]>{BRUSH}', "without DOCTYPE"),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><View>&b;</View>',
            "without DOCTYPE",
        ),
        ("<View>" + " " * 300_000, "at most 262144 characters"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said(
    serving: Callable[..., Any], config: str, message: str
) -> None:
    with serving(label_studio_url="http://localhost:8080") as client:
        for path, asked in (
            ("setup", {"schema": config}),
            ("predict", {"label_config": config, "tasks": [{"data": {"picture": "x"}}]}),
        ):
            answer = client.request("POST", f"/label-studio/{path}", json=asked)
            assert (answer.status_code, message in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("asked", [{}, [], {"tasks": 7, "label_config": BRUSH}, None])
def test_a_request_that_is_none_is_refused(client: Client, asked: Any) -> None:
    answer = client.request("POST", "/label-studio/predict", content=orjson.dumps(asked))
    assert (answer.status_code, "Correct the request" in answer.text) == (400, True)


def test_a_personal_token_is_exchanged_for_one_that_is_taken(
    serving: Callable[..., Any], studio: ThreadingHTTPServer
) -> None:
    with serving(label_studio_url=address(studio), label_studio_key="a.b.c") as client:
        del Studio.asked[:]
        for _ in range(2):
            assert regions(predict(client, "/data/upload/1/photo.png"))
    assert Studio.asked == [
        ("/api/token/refresh", "a.b.c"),
        *[("/data/upload/1/photo.png", "Bearer access")] * 2,
    ]


def test_a_wrong_key_is_said(serving: Callable[..., Any], studio: ThreadingHTTPServer) -> None:
    with serving(label_studio_url=address(studio), label_studio_key="wrong") as client:
        answer = predict(client, "/data/upload/1/photo.png")
    assert (answer.status_code, "PPOOL_LABEL_STUDIO_KEY" in answer.json()["detail"]) == (400, True)


def test_the_key_goes_to_label_studio_alone(
    serving: Callable[..., Any], studio: ThreadingHTTPServer
) -> None:
    others = {"label_studio_origins": [address(studio)], "label_studio_key": "legacy"}
    with serving(label_studio_url="http://localhost:1", **others) as client:
        answer = predict(client, f"{address(studio)}/data/upload/1/photo.png")
    assert Studio.asked[-1] == ("/data/upload/1/photo.png", None)
    assert "answered 401" in answer.json()["detail"]


def test_what_is_no_answer_of_http_is_said(serving: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"no HTTP\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with serving(label_studio_url=place) as client:
            answers = [predict(client, text) for text in ("/photo.png", "/a b")]
        thread.join()
    for found in answers:
        assert (found.status_code, "check the address" in found.text) == (400, True), found.text


def test_api_keys_are_taken_as_the_password_that_label_studio_sends(
    serving: Callable[..., Any],
) -> None:
    with serving(label_studio_url="http://localhost:8080", api_keys="secret") as client:
        for text, status in (("any:secret", 200), ("any:other", 401), ("secret", 401)):
            basic = base64.b64encode(text.encode()).decode()
            headers = {"Authorization": f"Basic {basic}"}
            answer = client.request("GET", "/label-studio/health", headers=headers)
            assert answer.status_code == status
        headers = {"Authorization": "Basic ???"}
        assert client.request("GET", "/label-studio/health", headers=headers).status_code == 401


def test_without_the_setting_there_is_nothing(serving: Callable[..., Any]) -> None:
    with serving() as client:
        assert predict(client, "x").status_code == 404


JUDGE = """
import sys, json, numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue

config, results = json.load(sys.stdin)
interface = LabelInterface(config)
for result in results:
    prediction = PredictionValue(result=result["result"], model_version="x")
    assert interface.validate_prediction(json.loads(prediction.model_dump_json())), result
planes = {
    region["value"]["brushlabels"][0]: decode_rle(region["value"]["rle"])
    .reshape(region["original_height"], region["original_width"], 4)[..., 3].tolist()
    for result in results for region in result["result"] if region["type"] == "brushlabels"
}
json.dump(planes, sys.stdout)
"""


@pytest.mark.skipif("LABEL_STUDIO_PYTHON" not in os.environ, reason="run by `make clients`")
@pytest.mark.parametrize("config", [BRUSH, POLYGONS])
def test_label_studios_own_library_takes_the_predictions(
    client: Client, mask: NDArray[np.uint8], config: str
) -> None:
    results = predict(client, "/data/upload/1/photo.png", config=config).json()["results"]
    done = subprocess.run(
        [os.environ["LABEL_STUDIO_PYTHON"], "-c", JUDGE],
        input=orjson.dumps([config, results]),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    planes = orjson.loads(done.stdout)
    assert sorted(planes) == (["Bright", "shadow"] if config == BRUSH else [])
    for label, plane in planes.items():
        np.testing.assert_array_equal(
            np.array(plane) > 0, mask == {"Bright": 2, "shadow": 0}[label]
        )
