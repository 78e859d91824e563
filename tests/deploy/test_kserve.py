"""The manifests for KServe: its own schemas, and a service started as its controller would."""

import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import httpx
import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.running import free_port, service
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


@pytest.fixture(scope="module", params=["v2", "grpc-v2"])
def runtime(objects: Any, request: pytest.FixtureRequest) -> Any:
    """The one that KServe chooses for a protocol, by itself."""
    runtimes = [entry["spec"] for entry in objects if entry["kind"] == "ClusterServingRuntime"]
    [only] = [spec for spec in runtimes if request.param in spec["protocolVersions"]]
    return only


@pytest.fixture(scope="module")
def over_grpc(runtime: Any) -> bool:
    return runtime["protocolVersions"] == ["grpc-v2"]


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
    assert model["protocolVersion"] == "v2"


def test_knative_has_the_one_port_that_it_allows_and_knows_its_protocol(
    container: Any, over_grpc: bool
) -> None:
    [port] = container["ports"]
    assert (port.get("name") == "h2c") == over_grpc
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    if over_grpc:
        assert variables["PPOOL_GRPC_PORT"] == str(port["containerPort"])


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
    container: Any, objects: Any, over_grpc: bool, tmp_path: Path
) -> None:
    name = of_kind(objects, "InferenceService")["metadata"]["name"] + "-2"
    shutil.copy(shipped_model(), tmp_path / "any name.onnx")
    # What the controller's template puts in.
    rendered = json.loads(json.dumps(container).replace("{{.Name}}", name))
    arguments = [word.replace(MODELS, str(tmp_path)) for word in rendered["args"]]
    arguments.remove("--http_port=8080")  # the harness takes a free one
    free = str(free_port())
    environment = {"PPOOL_GRPC_PORT": free} if over_grpc else {}
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    with (
        service(*arguments, "--workers", "1", **environment) as (_, address),
        grpc.insecure_channel(f"127.0.0.1:{free}") as channel,
    ):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if over_grpc and probe != "livenessProbe":
                assert rendered[probe]["grpc"]["port"] == rendered["ports"][0]["containerPort"]
                answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=60)
                assert answer.status == HealthCheckResponse.SERVING
            else:
                asked = rendered[probe]["httpGet"]
                assert asked["port"] == 8080
                assert httpx.get(address + asked["path"]).status_code == 200
        if over_grpc:
            with triton.InferenceServerClient(f"127.0.0.1:{free}") as client:
                assert client.is_model_ready(name)
                image = triton.InferInput("image", pixels.shape, "UINT8")
                image.set_data_from_numpy(pixels)
                mask = client.infer(name, [image], client_timeout=60).as_numpy("mask")
            assert mask.shape == (1, 8, 8)
            return
        assert httpx.get(f"{address}/v2/models/other/ready").status_code == 404
        tensor = {"name": "image", "shape": pixels.shape, "datatype": "UINT8"}
        body = {"inputs": [tensor | {"data": pixels.ravel().tolist()}]}
        answer = httpx.post(f"{address}/v2/models/{name}/infer", json=body).json()
        assert answer["model_name"] == name
        assert answer["outputs"][0]["shape"] == [1, 8, 8]


def test_the_port_is_taken_under_kserves_name(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ppool.service.cli import app

    outcome = CliRunner().invoke(app, ["serve", "--http_port=66000", "--model_dir=/nowhere"])
    assert outcome.exit_code == 2
    assert "PPOOL_PORT" in str(outcome.exception) + outcome.output
