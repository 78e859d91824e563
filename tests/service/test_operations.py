"""Probes, metrics, models, and a description that matches what is served."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ppool.metadata import ModelMetadata
from ppool.service.models import model_files, shipped_model
from ppool.service.workers.inference import Segmenter, load_segmenter
from tests.service.harness import METADATA, Client, encoded, photo


def test_the_probes_say_alive_and_ready(client: Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_draining_service_is_alive_but_not_ready(client: Client) -> None:
    engine = client.app.state.engine
    engine.drain()
    try:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
        assert client.get("/livez").status_code == 200
    finally:
        engine.phase = "ready"


def test_a_model_tells_all_about_itself(client: Client, model_file: Path) -> None:
    about = client.get("/models/tiny").json()
    assert [about] == client.get("/models").json()
    assert about["name"] == "tiny"
    assert [entry["name"] for entry in about["classes"]] == ["dark", "middle", "bright"]
    assert [entry["name"] for entry in about["stages"]] == ["pool1", "pool2"]
    size = {"max_side": 128, "multiple": 16, "size": None}
    assert {key: about["input"][key] for key in size} == size
    assert about["provider"] == "CPUExecutionProvider"
    assert about["kernels"] in {"native", "portable"}
    assert about["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()


def test_a_model_without_a_card_says_so(client: Client) -> None:
    assert client.get("/models/tiny").json()["card"] == ""
    answer = client.get("/models/tiny/card")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "The file of model 'tiny' has no card."
    assert client.get("/models/cats/card").status_code == 404


def test_a_card_is_served_where_the_model_says(client: Client) -> None:
    models = client.app.state.engine.registry.models
    bare = models["tiny"]
    models["tiny"] = replace(bare, model=replace(bare.model, card="# Für Seiten\n"))
    try:
        where = client.get("/models/tiny").json()["card"]
        answer = client.get(where)
    finally:
        models["tiny"] = bare
    assert where == "/models/tiny/card"
    assert answer.text == "# Für Seiten\n"
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"


def test_an_unknown_model_is_a_problem_naming_the_known(client: Client) -> None:
    answer = client.get("/models/cats")
    assert answer.status_code == 404
    assert "'cats'" in answer.json()["detail"]
    assert "tiny" in answer.json()["detail"]


def test_a_model_is_served_under_the_name_given(model_file: Path) -> None:
    assert load_segmenter(model_file, name="mine").model.name == "mine"


def test_a_bad_model_file_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not an ONNX file")
    with pytest.raises(ValueError, match="cannot be served"):
        load_segmenter(path)


def test_a_folder_stands_for_the_models_in_it(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in model_files([tmp_path])] == ["a.onnx", "b.onnx"]


def test_the_models_that_ship_are_called_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_files([Path("pages"), Path("pages-int8")]) == [
        shipped_model(), shipped_model("pages-int8"),
    ]  # fmt: skip
    # What lies in the folder one works in comes first.
    own = tmp_path / "pages"
    own.mkdir()
    (own / "own.onnx").touch()
    assert [path.name for path in model_files([Path("pages")])] == ["own.onnx"]


@pytest.mark.parametrize(
    ("path", "message"), [("no.onnx", "does not exist"), (".", "ONNX files in the folder")]
)
def test_a_model_path_that_leads_nowhere_says_so(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_files([tmp_path / path])


def test_metrics_count_requests_stages_and_batches(serving: Any) -> None:
    with serving() as client:
        client.segment(encoded(photo()))
        client.segment(b"broken")
        text = client.get("/metrics").text
        families = {family.name for family in text_string_to_metric_families(text)}
        assert families >= {
            "ppool_requests",
            "ppool_requests_in_flight",
            "ppool_stage_seconds",
            "ppool_batch_size",
            "ppool_batch_fill_ratio",
            "ppool_pad_waste_ratio",
            "ppool_queue_depth",
            "ppool_queue_age_seconds",
            "ppool_queue_seconds",
            "ppool_refused",
            "ppool_ready",
            "ppool_worker_up",
            "ppool_worker_restarts",
            "ppool_device_memory_bytes",
            "ppool_model_reloads",
            "ppool_build_info",
        }
        assert client.metric('ppool_requests_total{reason="ok",status="200"}') == 1
        assert client.metric('ppool_requests_total{reason="unsupported-image",status="415"}') == 1
        for stage in ("decode", "queue", "infer", "encode", "total"):
            count = f'ppool_stage_seconds_count{{model="tiny",stage="{stage}"}}'
            assert client.metric(count) == 1
        # 60 x 40 pixels in 64 x 48.
        waste = client.metric('ppool_pad_waste_ratio_sum{model="tiny"}')
        assert waste == pytest.approx(1 - 60 * 40 / (64 * 48))
        assert re.search(
            r'ppool_build_info\{file="tiny.onnx",kernels="\w+",model="tiny",provider="CPU', text
        )


def test_openapi_lists_every_status_and_media_type(client: Client) -> None:
    document = client.get("/openapi.json").json()
    segment = document["paths"]["/segment"]["post"]
    assert set(segment["responses"]) == {
        *("200", "400", "401", "404", "406", "413", "415", "422", "429", "500", "503", "504")
    }
    assert set(segment["responses"]["200"]["content"]) >= {
        *("image/png", "application/json", "application/x-npz", "application/zip")
    }
    assert {parameter["name"] for parameter in segment["parameters"]} >= {
        *("model", "alpha", "overlay", "mode", "mask", "page", "Accept", "X-Request-Timeout-Ms")
    }
    assert "multipart/form-data" in segment["requestBody"]["content"]
    for status, response in segment["responses"].items():
        if status != "200":
            (media,) = response["content"]
            assert media == "application/problem+json"
            assert response["content"][media]["example"]["status"] == int(status)
            wanted = {"$ref": "#/components/schemas/Problem"}
            assert response["content"][media]["schema"] == wanted
    assert "SegmentReply" in document["components"]["schemas"]
    assert "HTTPValidationError" not in str(document)


def test_pages_load_nothing_from_outside(client: Client) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "://" not in page.text
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.text):
            assert link.startswith("data:") or client.get(f"/{link}").status_code == 200


def test_model_metadata_of_the_session_is_the_files(segmenter: Segmenter) -> None:
    assert segmenter.model.into(ModelMetadata) == METADATA
