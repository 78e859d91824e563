"""The manifests for KServe: its own schemas, and a service started as its controller would."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import yaml

from benchmarks.running import service
from ppool.service.models import shipped_model
from ppool.service.settings import Settings
from tests.deploy.test_manifests import K8S, RELEASES, kustomize, of_kind

SCHEMAS = json.loads((Path(__file__).parent / "kserve.json").read_text())
KINDS = {
    "ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
    "InferenceService": "V1beta1InferenceService",
}
MODELS = "/mnt/models"

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


@pytest.fixture(scope="module")
def objects() -> tuple[dict[str, Any], ...]:
    return kustomize(K8S / "kserve")


@pytest.fixture(scope="module")
def runtime(objects: Any) -> Any:
    return of_kind(objects, "ClusterServingRuntime")["spec"]


@pytest.fixture(scope="module")
def predictor(objects: Any) -> Any:
    return of_kind(objects, "InferenceService")["spec"]["predictor"]


@pytest.fixture(scope="module")
def container(runtime: Any) -> Any:
    [only] = runtime["containers"]
    return only


def validate(entry: dict[str, Any]) -> None:
    schema = SCHEMAS | {"$ref": f"#/$defs/{KINDS[entry['kind']]}"}
    jsonschema.Draft202012Validator(schema).validate(entry)


def test_every_object_is_one_of_kserve(objects: Any) -> None:
    assert {entry["kind"] for entry in objects} == set(KINDS)
    for entry in objects:
        validate(entry)
    wrong = yaml.safe_load((K8S / "kserve" / "inference-service.yaml").read_text())
    wrong["spec"]["predictor"]["model"]["storageURI"] = "s3://models/pages"
    with pytest.raises(jsonschema.ValidationError, match="storageURI"):
        validate(wrong)


@pytest.mark.parametrize("release", RELEASES)
def test_what_becomes_a_pod_would_be_accepted(container: Any, predictor: Any, release: str) -> None:
    grace = predictor["terminationGracePeriodSeconds"]
    pod = {"containers": [container], "terminationGracePeriodSeconds": grace}
    about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pages"}, "spec": pod}
    kubernetes_validate.validate(about, release, strict=True)


def test_the_service_chooses_the_runtime_by_its_format(runtime: Any, predictor: Any) -> None:
    model = predictor["model"]
    formats = {f["name"]: f for f in runtime["supportedModelFormats"] if f["autoSelect"]}
    assert formats[model["modelFormat"]["name"]]["version"] == model["modelFormat"]["version"]
    assert model["protocolVersion"] in runtime["protocolVersions"]


def test_an_image_is_named_with_its_tag(container: Any) -> None:
    assert container["image"] == "ppool:cpu"


def test_the_grace_period_covers_leaving_and_half_as_much_again(
    container: Any, predictor: Any
) -> None:
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = Settings.model_validate(
        {name.removeprefix("PPOOL_").lower(): value for name, value in variables.items()}
    )
    leaving = settings.drain_delay_seconds + settings.request_timeout_seconds
    assert predictor["terminationGracePeriodSeconds"] >= leaving * 1.5


def test_started_as_kserve_starts_it_the_model_answers_under_the_services_name(
    container: Any, objects: Any, tmp_path: Path
) -> None:
    name = of_kind(objects, "InferenceService")["metadata"]["name"] + "-2"
    shutil.copy(shipped_model(), tmp_path / "any name.onnx")
    # What the controller's template puts in.
    rendered = json.loads(json.dumps(container).replace("{{.Name}}", name))
    arguments = [word.replace(MODELS, str(tmp_path)) for word in rendered["args"]]
    [port] = [port["containerPort"] for port in container["ports"]]
    assert f"--http_port={port}" in arguments
    arguments.remove(f"--http_port={port}")  # the harness takes a free one
    with service(*arguments, "--workers", "1") as (_, address):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = rendered[probe]["httpGet"]
            assert asked["port"] == port
            assert httpx.get(address + asked["path"]).status_code == 200
        assert httpx.get(f"{address}/v2/models/other/ready").status_code == 404
        tensor = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "UINT8"}
        body = {"inputs": [tensor | {"data": np.zeros(192, int).tolist()}]}
        answer = httpx.post(f"{address}/v2/models/{name}/infer", json=body).json()
        assert answer["model_name"] == name
        assert answer["outputs"][0]["shape"] == [1, 8, 8]


def test_the_port_is_taken_under_kserves_name(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ppool.service.cli import app

    outcome = CliRunner().invoke(app, ["serve", "--http_port=66000", "--model_dir=/nowhere"])
    assert outcome.exit_code == 2
    assert "PPOOL_PORT" in str(outcome.exception) + outcome.output
