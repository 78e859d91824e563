"""Triton's extensions of the Open Inference Protocol over HTTP, asked by its own client."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import tritonclient.http as triton

from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo, tiny_model
from tests.service.test_openinference import INFER, LENGTH, infer, tensor
from tests.service.test_segment import png
from tests.service.traffic import PATIENCE_SECONDS, Server, served

PIXELS = photo(70, 50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    for seed, name in enumerate(("first", "second")):
        (folder / f"{name}.onnx").write_bytes(tiny_model(seed, name))
    environment = {"PPOOL_WORKERS": "1", "PPOOL_THREADS": "1", "PPOOL_MAX_BATCH_SIZE": "1"}
    with served(str(folder), PPOOL_MODEL_CONTROL="true", **environment) as server:
        yield server


@pytest.fixture(scope="module")
def asked(server: Server) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.address.removeprefix("http://"))
    yield client
    client.close()


def given(kind: str = "UINT8", *, binary: bool = True) -> Any:
    if kind == "UINT8":
        values, shape = PIXELS[None], [1, *PIXELS.shape]
    else:
        values, shape = np.array([encoded(PIXELS)], np.object_), [1]
    return triton.InferInput("image", shape, kind).set_data_from_numpy(values, binary_data=binary)


def test_health_and_metadata(asked: Any) -> None:
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("first")
    assert asked.get_server_metadata()["name"] == "ppool"
    assert asked.get_model_metadata("first")["inputs"][0]["name"] == "image"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_masks_are_those_of_segment(
    server: Server, asked: Any, compression: str | None, binary: bool
) -> None:
    content = httpx.post(f"{server.address}/segment", content=encoded(PIXELS)).content
    wanted = np.asarray(png(content))
    entries = [given(binary=binary), given("BYTES")]  # as JSON the client sends texts, not files
    for entry in entries:
        result = asked.infer(
            "first",
            [entry],
            outputs=[triton.InferRequestedOutput("mask", binary_data=binary)],
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        np.testing.assert_array_equal(result.as_numpy("mask"), [wanted])


def test_an_unknown_model_is_named(asked: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="cats"):
        asked.infer("cats", [given()])


@pytest.mark.parametrize("binary", [True, False])
def test_classification_tells_the_classes_that_cover_most(asked: Any, binary: bool) -> None:
    plain = asked.infer("first", [given()]).as_numpy("mask")
    shares = np.bincount(plain.ravel(), minlength=3) / plain.size
    order = np.argsort(-shares, kind="stable")
    for count in (1, 2, 99):
        output = triton.InferRequestedOutput("mask", binary_data=binary, class_count=count)
        found = asked.infer("first", [given()], outputs=[output]).as_numpy("mask")
        texts = [getattr(text, "decode", lambda text=text: text)() for text in found[0]]
        names = ("dark", "middle", "bright")
        assert texts == [f"{shares[index]:.6f}:{index}:{names[index]}" for index in order[:count]]


def test_the_configuration_has_the_tensors_and_how_they_are_run(asked: Any) -> None:
    config = asked.get_model_config("first")
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}]
    types = {output["name"]: output["data_type"] for output in config["output"]}
    assert types == {
        "mask": "TYPE_UINT8",
        **dict.fromkeys(("alpha/pool1", "alpha/pool2"), "TYPE_FP32"),
        **dict.fromkeys(("overlay", "cutout", "polygons", "components", "coco"), "TYPE_STRING"),
    }
    assert (config["max_batch_size"], config["default_model_filename"]) == (32, "first.onnx")
    assert config["instance_group"][0] | {"name": ""} == {
        "name": "", "count": 1, "kind": "KIND_CPU", "gpus": []
    }  # fmt: skip


def test_statistics_count_what_was_asked(asked: Any) -> None:
    before = asked.get_inference_statistics("second")["model_stats"][0]
    asked.infer("second", [given()])
    with pytest.raises(triton.InferenceServerException):
        asked.infer("second", [given()], outputs=[triton.InferRequestedOutput("x")])
    after = asked.get_inference_statistics("second", "1")["model_stats"][0]
    for name in ("inference_count", "execution_count"):
        assert after[name] == before[name] + 1
    assert after["last_inference"] > before["last_inference"]
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        spent, earlier = after["inference_stats"][name], before["inference_stats"][name]
        assert (spent["count"], spent["ns"] >= earlier["ns"]) == (earlier["count"] + 1, True), name
    assert after["batch_stats"][0]["compute_infer"]["count"] == after["execution_count"]
    every = asked.get_inference_statistics()["model_stats"]
    assert [entry["name"] for entry in every] == ["first", "second"]


def test_models_are_unloaded_and_loaded(server: Server, asked: Any) -> None:
    def states() -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in asked.get_model_repository_index()}

    assert states() == {"first": "READY", "second": "READY"}
    asked.unload_model("second")
    assert states() == {"first": "READY", "second": "UNAVAILABLE"}
    assert not asked.is_model_ready("second")
    with pytest.raises(triton.InferenceServerException, match="only model"):
        asked.unload_model("first")
    asked.load_model("second")
    assert asked.is_model_ready("second")
    assert asked.infer("second", [given()]).as_numpy("mask").shape == (1, 50, 70)
    asked.load_model("second")  # nothing changed
    with pytest.raises(triton.InferenceServerException, match="no file of a model called 'cats'"):
        asked.load_model("cats")
    with pytest.raises(triton.InferenceServerException, match="as its file has it"):
        asked.load_model("second", config='{"backend": "python"}')
    body = {"ready": True}
    only = httpx.post(f"{server.address}/v2/repository/index", json=body).json()
    assert {entry["state"] for entry in only} == {"READY"}


def test_a_file_that_cannot_be_served_is_not_loaded(folder: Path, asked: Any) -> None:
    (folder / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(triton.InferenceServerException, match="the server's log says why"):
        asked.load_model("bad")
    (entry,) = (entry for entry in asked.get_model_repository_index() if entry["name"] == "bad")
    assert (entry["state"], "cannot be served" in entry["reason"]) == ("UNAVAILABLE", True)
    (folder / "bad.onnx").write_bytes(tiny_model(name="bad"))
    asked.load_model("bad")
    assert asked.is_model_ready("bad")


def test_loading_is_switched_off_by_default(client: Client) -> None:
    for verb in ("load", "unload"):
        answer = client.request("POST", f"/v2/repository/models/tiny/{verb}")
        assert (answer.status_code, "PPOOL_MODEL_CONTROL" in answer.json()["error"]) == (403, True)


@pytest.mark.parametrize("body", [b"[]", b"{", b"7"])
def test_what_is_no_object_is_refused(client: Client, body: bytes) -> None:
    answer = client.request("POST", "/v2/repository/index", content=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"name": "alpha/pool1", "parameters": {"classification": 1}}, "has none"),
        ({"name": "polygons", "parameters": {"classification": 1}}, "has none"),
        ({"name": "mask", "parameters": {"classification": 0}}, "how many classes"),
        ({"name": "mask", "parameters": {"classification": True}}, "how many classes"),
        ({"name": "mask", "parameters": {"classification": "2"}}, "how many classes"),
    ],
)
def test_a_classification_that_is_none_is_refused(
    client: Client, output: Any, message: str
) -> None:
    answer = infer(client, {"inputs": [tensor()], "outputs": [output]})
    assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("identity", None),
        ("br, zstd", None),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("deflate;q=1, gzip;q=0.5", "deflate"),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_answers_are_compressed_for_who_takes_that(
    client: Client, accepted: str, coding: str | None, binary: bool
) -> None:
    outputs = [{"name": "mask", "parameters": {"binary_data": binary}}]
    text = orjson.dumps(
        {"inputs": [tensor()], "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    plain = client.request("POST", INFER, content=text, headers={"Accept-Encoding": "identity"})
    answer = client.request("POST", INFER, content=text, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers.get(LENGTH) == plain.headers.get(LENGTH)
    assert answer.content == plain.content  # httpx has decompressed it
    assert int(answer.headers["content-length"]) <= len(plain.content)


def test_a_timeout_is_the_requests_limit(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        document = {"inputs": [tensor()], "parameters": {"timeout": 20_000_000}}
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        pending = client.start("POST", INFER, content=text)
        gate.arrived.acquire(timeout=PATIENCE_SECONDS)
        client.skip(21)  # of the thirty that the server allows
        answer = pending.result(PATIENCE_SECONDS)
        gate.open.set()
    assert (answer.status_code, "time limit" in answer.json()["error"]) == (504, True)


@pytest.mark.parametrize("value", [0, 10**18, 10**400])
def test_a_timeout_longer_than_the_servers_is_the_servers(client: Client, value: int) -> None:
    text = orjson.dumps(
        {"inputs": [tensor()], "parameters": {"timeout": "*"}}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    body = text.replace(b'"*"', str(value).encode())
    assert client.request("POST", INFER, content=body).status_code == 200


@pytest.mark.parametrize("value", [-1, True, False, 1.5, "1"])
def test_a_timeout_that_is_none_is_refused(client: Client, value: Any) -> None:
    answer = infer(client, {"inputs": [tensor()], "parameters": {"timeout": value}})
    assert (answer.status_code, "microseconds" in answer.json()["error"]) == (400, True)
