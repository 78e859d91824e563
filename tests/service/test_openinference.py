"""The Open Inference Protocol, by hand and through a client written by others."""

import base64
import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.test_segment import outputs_of, png
from tests.service.traffic import PATIENCE_SECONDS, until

INFER = "/v2/models/tiny/infer"
PHOTOS = np.stack([photo(60, 40), photo(60, 40, seed=1)])
LENGTH = "Inference-Header-Content-Length"


def infer(client: Client, document: Any, binary: bytes = b"", **headers: str) -> httpx.Response:
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if binary:
        headers = {LENGTH: str(len(text)), **headers}
    return client.request("POST", INFER, content=text + binary, headers=headers)


def tensor(**changes: Any) -> dict[str, Any]:
    entry = {"name": "image", "datatype": "UINT8", "shape": PHOTOS.shape, "data": PHOTOS.ravel()}
    return {key: value for key, value in (entry | changes).items() if value is not None}


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def test_health_and_metadata(client: Client) -> None:
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1"):
        about = client.get(path).json()
        assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
        assert [entry["name"] for entry in about["outputs"]] == [
            *("mask", "alpha/pool1", "alpha/pool2"),
            *("overlay", "cutout", "polygons", "components", "coco"),
        ]
        assert about["outputs"][-1] == {"name": "coco", "datatype": "BYTES", "shape": [-1]}
        assert client.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}


def test_json_tensors_in_and_out(client: Client, segmenter: Segmenter) -> None:
    answer = infer(client, {"id": "7", "inputs": [tensor()]})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["id"], document["model_name"]) == ("7", "tiny")
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"]) == ("mask", "UINT8")
    masks = np.array(output["data"], np.uint8).reshape(output["shape"])
    expected = [outputs_of(segmenter, pixels)["mask"] for pixels in PHOTOS]
    np.testing.assert_array_equal(masks, np.stack(expected))


def test_binary_tensors_in_and_out_with_alpha_maps(client: Client, segmenter: Segmenter) -> None:
    given = tensor(data=None, parameters={"binary_data_size": PHOTOS.size})
    outputs = [
        {"name": "alpha/pool2", "parameters": {"binary_data": True}},
        {"name": "mask", "parameters": {"binary_data": True}},
    ]
    answer = infer(client, {"inputs": [given], "outputs": outputs}, PHOTOS.tobytes())
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    document, binary = orjson.loads(answer.content[:length]), answer.content[length:]
    expected = [outputs_of(segmenter, pixels) for pixels in PHOTOS]
    for output, dtype in zip(document["outputs"], (np.float32, np.uint8), strict=True):
        size = output["parameters"]["binary_data_size"]
        found = np.frombuffer(binary[:size], dtype).reshape(output["shape"])
        binary = binary[size:]
        truth = np.stack([entry[output["name"]] for entry in expected])
        np.testing.assert_array_equal(found, truth)
    assert not binary


def test_photo_files_as_bytes(client: Client) -> None:
    files = [encoded(pixels, "JPEG") for pixels in PHOTOS]
    masks = [np.asarray(png(client.segment(file).content)) for file in files]
    content = elements(*files)
    given = {"datatype": "BYTES", "shape": [2], "data": None}
    binary = tensor(**given, parameters={"binary_data_size": len(content)})
    text = tensor(**given | {"data": [base64.b64encode(file).decode() for file in files]})
    for answer in (
        infer(client, {"inputs": [binary]}, content),
        infer(client, {"inputs": [text]}),
    ):
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        found = np.array(output["data"], np.uint8).reshape(output["shape"])
        np.testing.assert_array_equal(found, np.stack(masks))


def test_the_parameter_page_names_a_page_of_each_file(client: Client) -> None:
    first, second = map(Image.fromarray, (photo(60, 40), photo(50, 20, seed=1)))
    file = encoded(first, "TIFF", save_all=True, append_images=[second])
    given = tensor(datatype="BYTES", shape=[1], data=[base64.b64encode(file).decode()])
    for page in (1, 2):
        answer = infer(client, {"parameters": {"page": page}, "inputs": [given]})
        (output,) = answer.json()["outputs"]
        wanted = np.asarray(png(client.segment(file, f"?page={page}").content))
        found = np.array(output["data"], np.uint8).reshape(output["shape"])
        np.testing.assert_array_equal(found, wanted[None])


WANTED = ("mask", "overlay", "cutout", "polygons", "components", "coco")


def of_segment(client: Client, file: bytes) -> dict[str, Any]:
    """What ``POST /segment`` makes of :data:`WANTED`, by name."""
    query = f"?answers={','.join(WANTED)}&classes=dark,2&cutout=bright&tolerance=0"
    answer = client.segment(file, query, accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        found: dict[str, Any] = {n.split(".")[-2]: archive.read(n) for n in archive.namelist()}
    (about,) = orjson.loads(found["result"])["images"]
    return found | {"mask": np.asarray(png(found["mask"])), "components": about["components"]}


@pytest.mark.parametrize("binary", [False, True])
def test_classes_cut_outs_and_polygons_are_those_of_segment(client: Client, binary: bool) -> None:
    files = [encoded(pixels) for pixels in PHOTOS]
    truth = [of_segment(client, file) for file in files]
    parameters = {"classes": "dark,2", "cutout": "bright", "tolerance": 0}
    data = [base64.b64encode(file).decode() for file in files]
    document = {
        "inputs": [tensor(datatype="BYTES", shape=[2], data=data)],
        "parameters": parameters | {"binary_data_output": binary},
        "outputs": [{"name": name} for name in WANTED],
    }
    answer = infer(client, document)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    outputs, rest = orjson.loads(answer.content[:length])["outputs"], answer.content[length:]
    found: dict[str, list[Any]] = {}
    for output in outputs:
        name, values = output["name"], output.get("data")
        if binary:
            size = output["parameters"]["binary_data_size"]
            values, rest = rest[:size], rest[size:]
        if name == "mask":
            flat = np.frombuffer(values, np.uint8) if binary else np.array(values, np.uint8)
            found[name] = [*flat.reshape(output["shape"])]
            continue
        assert (output["datatype"], output["shape"]) == ("BYTES", [2])
        if binary:
            values = apart(values)
        elif name in {"overlay", "cutout"}:
            values = map(base64.b64decode, values)
        found[name] = [*values]
    for index, wanted in enumerate(truth):
        np.testing.assert_array_equal(found["mask"][index], wanted["mask"])
        assert {*np.unique(wanted["mask"])} == {0, 2, 255}
        assert found["overlay"][index] == wanted["overlay"]
        assert found["cutout"][index] == wanted["cutout"]
        assert orjson.loads(found["polygons"][index]) == orjson.loads(wanted["polygons"])
        assert wanted["components"]
        assert orjson.loads(found["components"][index]) == wanted["components"]
        coco = orjson.loads(wanted["coco"])
        assert coco["annotations"]
        assert orjson.loads(found["coco"][index])["annotations"] == coco["annotations"]


def apart(content: bytes) -> list[bytes]:
    """The elements of a BYTES tensor."""
    found = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + size])
        content = content[4 + size :]
    return found


def test_files_of_photos_of_other_sizes_fit_one_tensor(client: Client) -> None:
    """And a cut-out needs no ``outputs``, as in ``POST /segment``."""
    files = [encoded(photo(60, 40)), encoded(photo(50, 20, seed=1))]
    data = [base64.b64encode(file).decode() for file in files]
    given = tensor(datatype="BYTES", shape=[2], data=data)
    answer = infer(client, {"inputs": [given], "parameters": {"cutout": "dark,bright"}})
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    for text, file in zip(output["data"], files, strict=True):
        assert base64.b64decode(text) == client.segment(file, "?cutout=dark,bright").content


def test_a_classification_leaves_out_the_classes_that_are_not_chosen(client: Client) -> None:
    output = {"name": "mask", "parameters": {"classification": 3}}
    document = {"inputs": [tensor()], "outputs": [output]}
    plain = infer(client, document).json()["outputs"][0]["data"]
    chosen = infer(client, document | {"parameters": {"classes": "dark"}})
    shares = [text for text in plain[:3] if text.endswith("dark")]
    assert chosen.json()["outputs"][0]["data"][0] == shares[0]


@pytest.mark.parametrize(
    ("document", "status", "message"),
    [
        ({}, 400, "inputs: Field required"),
        ({"inputs": []}, 400, "inputs"),
        ({"inputs": [tensor(name="x")]}, 400, "one input 'image'"),
        ({"inputs": [tensor(data=None)]}, 400, "either data or"),
        ({"inputs": [tensor(parameters={"binary_data_size": 4}, data=None)]}, 400, "expected 0"),
        ({"inputs": [tensor(datatype="FP32")]}, 400, "not as FP32"),
        ({"inputs": [tensor(shape=[2, 40, 60])]}, 400, "not as UINT8 [2, 40, 60]"),
        ({"inputs": [tensor(data=[1, 2])]}, 400, "Send 14400 whole numbers from 0 to 255"),
        ({"inputs": [tensor(data=[300] * 14400)]}, 400, "whole numbers from 0 to 255"),
        ({"inputs": [tensor(datatype="BYTES", shape=[1], data=["?"])]}, 400, "as base64"),
        ({"inputs": [tensor(datatype="BYTES", shape=[1], data=["AAAA"])]}, 415, "Send a JPEG"),
        ({"inputs": [tensor(shape=[0, 4, 4, 3], data=[])]}, 400, "at least one image"),
        ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, 400, "no output called 'x'"),
        ({"inputs": [tensor()], "parameters": {"page": 2}}, 400, "a page from 1 to 1"),
        ({"inputs": [tensor()], "parameters": {"page": True}}, 400, "page: Input should be"),
        ({"inputs": [tensor()], "parameters": {"page": 0}}, 400, "page: Input should be greater"),
        ({"inputs": [tensor()], "parameters": {"classes": "cat"}}, 400, "it has dark, middle"),
        ({"inputs": [tensor()], "parameters": {"classes": ["dark"]}}, 400, "classes: Input should"),
        ({"inputs": [tensor()], "parameters": {"cutout": "cat"}}, 400, "no class 'cat'"),
        ({"inputs": [tensor()], "parameters": {"tolerance": -1}}, 400, "tolerance: Input should"),
        ({"inputs": [tensor()], "parameters": {"tolerance": True}}, 400, "tolerance: Input should"),
        ({"inputs": [tensor()], "parameters": {"mode": "x"}}, 400, "mode: Input should be"),
        ({"inputs": [tensor()], "outputs": [{"name": "cutout"}]}, 400, "which classes the cutout"),
        (
            {
                "inputs": [tensor()],
                "parameters": {"mode": "tile"},
                "outputs": [{"name": "alpha/pool1"}],
            },
            400,
            "no alpha maps with mode=tile",
        ),
        ({"inputs": [tensor(shape=[2**31, 4, 4, 3])]}, 400, "less than 2147483648"),
        ({"inputs": [tensor()], "outputs": [{"name": "mask"}] * 65}, 400, "at most 64 items"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocols_form(
    client: Client, document: Any, status: int, message: str
) -> None:
    answer = infer(client, document)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def test_null_is_not_set(client: Client) -> None:
    unset = {"parameters": None, "data": PHOTOS.ravel()}
    wanted = [{"name": "mask", "parameters": {"binary_data": None}}]
    plain = infer(client, {"inputs": [tensor()]}).json()
    for more in (
        {"id": None, "parameters": None, "outputs": None},
        {"parameters": {"binary_data_output": None}, "outputs": wanted},
        {"outputs": [{"name": "mask", "parameters": None}]},
    ):
        answer = infer(client, {"inputs": [tensor() | unset], **more})
        assert (answer.status_code, answer.json()) == (200, plain), answer.text
    binary = {"data": None, "parameters": {"binary_data_size": PHOTOS.size}}
    answer = infer(client, {"inputs": [tensor() | binary]}, PHOTOS.tobytes())
    assert answer.json()["outputs"] == plain["outputs"]


@pytest.mark.parametrize(
    "value",
    [
        "1.5",
        "256",
        "-1",
        "1e9",
        "-0.1",
        "1e-9",
        "true",
        "null",
        '"7"',
        "[]",
        "{}",
        "99999999999999999999",
        "",
    ],
)
def test_what_is_no_whole_number_from_0_to_255_is_refused(client: Client, value: str) -> None:
    for place in (0, 5000, 14399):
        data = ["7"] * 14400
        data[place] = value
        text = orjson.dumps({"inputs": [tensor(data="*")]}, option=orjson.OPT_SERIALIZE_NUMPY)
        body = text.replace(b'"*"', f"[{','.join(data)}]".encode())
        answer = client.request("POST", INFER, content=body)
        assert answer.status_code == 400, answer.text
        assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("write", ["{}.0", "{}e0", " {}\n", "+{}", "0{}"])
def test_numbers_are_read_as_json_has_them(client: Client, write: str) -> None:
    plain = infer(client, {"inputs": [tensor()]}).json()
    data = ",".join(write.format(value) for value in PHOTOS.ravel())
    text = orjson.dumps({"inputs": [tensor(data="*")]}, option=orjson.OPT_SERIALIZE_NUMPY)
    answer = client.request("POST", INFER, content=text.replace(b'"*"', f"[{data}]".encode()))
    if write in {"+{}", "0{}"}:
        assert answer.status_code == 400
    else:
        assert answer.json() == plain


def test_nested_pixels_and_another_order_of_keys_are_the_same_tensor(client: Client) -> None:
    plain = infer(client, {"inputs": [tensor()]}).json()
    nested = tensor(data=PHOTOS.tolist())
    backwards = dict(reversed(nested.items()))
    outputs = [{"parameters": {"data": [1, {}]}, "name": "mask"}]
    for document in (
        {"inputs": [nested]},
        {"outputs": outputs, "parameters": {"data": [[1]]}, "inputs": [backwards]},
    ):
        for indent in (None, orjson.OPT_INDENT_2):
            options = (indent or 0) | orjson.OPT_SERIALIZE_NUMPY
            answer = client.request("POST", INFER, content=orjson.dumps(document, option=options))
            assert (answer.status_code, answer.json()) == (200, plain), answer.text


@pytest.mark.parametrize("escape", [("/", "\\/"), ("=", "\\u003d"), ("A", "\\n\\u0041")])
def test_base64_is_read_however_its_string_is_written(
    client: Client, escape: tuple[str, str]
) -> None:
    """As PHP, Gson and mail libraries do; also where a piece of the text ends in an escape."""
    body = encoded(photo(301, 200), "BMP")
    text = base64.b64encode(body).decode().replace(*escape)
    assert "\\" in text
    given = orjson.dumps({"inputs": [tensor(datatype="BYTES", shape=[1], data=["*"])]})
    answer = client.request("POST", INFER, content=given.replace(b"*", text.encode()))
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    wanted = np.asarray(png(client.segment(body).content))
    np.testing.assert_array_equal(np.reshape(output["data"], output["shape"]), [wanted])


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [tensor()], "parameters": {"binary_data_output": "false"}},
        {"inputs": [tensor()], "outputs": [{"name": "mask", "parameters": {"binary_data": 0}}]},
        {"inputs": [tensor(data=None, parameters={"binary_data_size": True})]},
    ],
)
def test_a_flag_that_is_none_is_refused(client: Client, document: Any) -> None:
    assert infer(client, document).status_code == 400


def test_a_deadline_is_kept_and_its_stage_told_as_in_segment(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        document = orjson.dumps({"inputs": [tensor()]}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = {"X-Request-Timeout-Ms": "20000"}
        pending = [client.start("POST", INFER, content=document, headers=headers)]
        gate.arrived.acquire()  # one of the two photos is there
        body = encoded(photo())
        pending.append(client.start("POST", "/segment", content=body, headers=headers))
        until(lambda: client.metric("ppool_queue_depth") == 2)
        client.skip(20)
        try:
            answers = [answer.result(PATIENCE_SECONDS) for answer in pending]
        finally:
            gate.open.set()
    assert [answer.status_code for answer in answers] == [504, 504]
    told = answers[0].json()["error"], answers[1].json()["detail"]
    assert all("in the stage 'queue'" in text for text in told), told


def test_a_deadline_that_is_none_is_refused_as_in_segment(client: Client) -> None:
    answer = infer(client, {"inputs": [tensor()]}, **{"X-Request-Timeout-Ms": "soon"})
    assert (answer.status_code, "X-Request-Timeout-Ms" in answer.text) == (400, True)


@pytest.mark.parametrize("field", ["inputs", "outputs", "shape"])
def test_of_many_faults_the_first_is_told(client: Client, field: str) -> None:
    faults: list[Any] = ["fault"] * 1000
    inputs = {"shape": [tensor(shape=faults)], "inputs": faults, "outputs": [tensor()]}[field]
    answer = infer(client, {"inputs": inputs, "outputs": faults if field == "outputs" else []})
    assert (answer.status_code, answer.text.count("Input should be")) == (400, 1)


def test_an_output_that_is_asked_for_twice_comes_once(client: Client) -> None:
    answer = infer(client, {"inputs": [tensor()], "outputs": [{"name": "mask"}] * 2})
    assert [output["name"] for output in answer.json()["outputs"]] == ["mask"]


@pytest.mark.parametrize("content", [b"\1", struct.pack("<I", 9) + b"short"])
def test_a_bytes_tensor_cut_off_is_refused(client: Client, content: bytes) -> None:
    given = tensor(
        datatype="BYTES", shape=[1], data=None, parameters={"binary_data_size": len(content)}
    )
    answer = infer(client, {"inputs": [given]}, content)
    assert (answer.status_code, "ends inside" in answer.json()["error"]) == (400, True)


def test_masks_of_different_sizes_do_not_fit_one_tensor(client: Client) -> None:
    content = elements(encoded(photo(20, 20)), encoded(photo(30, 20)))
    given = tensor(
        datatype="BYTES", shape=[2], data=None, parameters={"binary_data_size": len(content)}
    )
    answer = infer(client, {"inputs": [given]}, content)
    assert answer.status_code == 400
    assert "different sizes" in answer.json()["error"]


def test_unknown_models_and_versions_and_lengths(client: Client) -> None:
    assert client.get("/v2/models/cats").status_code == 404
    assert "cats" in client.get("/v2/models/cats").json()["error"]
    assert client.get("/v2/models/tiny/versions/2").status_code == 400
    answer = infer(client, {"inputs": [tensor()]}, **{LENGTH: "99999999"})
    assert "expected at most" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/nothing", 404), ("GET", INFER, 405), ("POST", "/v2", 405)],
)
def test_what_is_not_served_is_said_in_the_protocols_form(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json() == {"error": f"{method} {path} is not served; the API is at /docs."}
    other = client.request(method, "/v2nothing")
    assert other.headers["content-type"] == "application/problem+json"


def test_a_missing_key_is_said_in_the_protocols_form(serving: Callable[..., Any]) -> None:
    with serving(api_keys="key") as client:
        answer = client.get("/v2/models/tiny")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert list(answer.json()) == ["error"]


def test_what_breaks_unforeseen_is_said_in_the_protocols_form_without_its_cause(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as client:
        monkeypatch.setattr(client.app.state.engine, "served", lambda _: {}["cause"])
        answer = infer(client, {"inputs": [tensor()]})
    assert answer.status_code == 500
    assert list(answer.json()) == ["error"]
    assert "cause" not in answer.text
