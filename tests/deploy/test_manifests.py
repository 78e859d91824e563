"""The Kubernetes manifests: real kustomize, the API's own schemas, and what we promise of them."""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from ppool.service.settings import Settings

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("cpu", "gpu", "gpu-keda")
# As a user's overlay has them: on top of `cpu`, one at a time.
COMPONENTS = (
    "api-keys",
    "gateway",
    "ingress",
    "model-image",
    "model-store",
    "model-volume",
    "tracing",
)
SERVING = (*OVERLAYS, *COMPONENTS)
# From the first release where preStop.sleep is on by default to the newest with a schema here.
RELEASES = ("1.30", kubernetes_validate.latest_version())
CUSTOM_KINDS = {"Gateway", "HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor"}

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


def kustomize(folder: Path) -> tuple[dict[str, Any], ...]:
    rendered = subprocess.run(
        ["kubectl", "kustomize", folder], check=True, capture_output=True, text=True
    )
    return tuple(yaml.safe_load_all(rendered.stdout))


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Overlay name to its objects; each is rendered once."""

    @functools.cache
    def render(overlay: str) -> tuple[dict[str, Any], ...]:
        if overlay not in COMPONENTS:
            return kustomize(K8S / "overlays" / overlay)
        root = tmp_path_factory.mktemp("user") / "k8s"
        shutil.copytree(K8S, root)
        mine = root / "overlays" / "mine"
        mine.mkdir()
        (mine / "kustomization.yaml").write_text(
            f"resources: [../cpu]\ncomponents: [../../components/{overlay}]\n"
        )
        return kustomize(mine)

    return render


def of_kind(objects: tuple[dict[str, Any], ...], kind: str) -> dict[str, Any]:
    [found] = [entry for entry in objects if entry["kind"] == kind]
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside ``node``."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def seconds(environment: dict[str, str], name: str) -> float:
    return float(environment[f"PPOOL_{name}_SECONDS"])


@pytest.fixture(params=SERVING)
def objects(request: pytest.FixtureRequest, rendered: Any) -> Any:
    return rendered(request.param)


@pytest.fixture
def pod(objects: Any) -> dict[str, Any]:
    return of_kind(objects, "Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [only] = pod["containers"]
    return only


@pytest.fixture
def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_every_overlay_and_component_is_tested() -> None:
    overlays, components = (
        {path.name for path in (K8S / kind).iterdir()} for kind in ("overlays", "components")
    )
    assert overlays == {*OVERLAYS, "monitoring"}
    assert components == {*COMPONENTS, "gpu"}  # part of two overlays


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", [*SERVING, "monitoring"])
def test_the_api_would_accept_every_object(rendered: Any, overlay: str, release: str) -> None:
    for entry in rendered(overlay):
        if entry["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(entry, release, strict=True)


def test_the_schemas_notice_a_wrong_field(objects: Any) -> None:
    deployment = {**of_kind(objects, "Deployment"), "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, RELEASES[-1], strict=True)


def test_an_autoscaler_owns_the_number_of_replicas(objects: Any) -> None:
    deployment = of_kind(objects, "Deployment")
    assert "replicas" not in deployment["spec"]
    [scaler] = [o for o in objects if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_every_container_is_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The `restricted` Pod Security Standard, and a read-only root beyond it."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for one in (container, *pod.get("initContainers", [])):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    kinds = {kind for volume in pod["volumes"] for kind in volume} - {"name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}


def test_every_probe_asks_a_path_that_the_service_has(
    container: dict[str, Any], address: str
) -> None:
    served = httpx.get(f"{address}/openapi.json").json()["paths"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    for probe in probes.values():
        assert "get" in served[probe["httpGet"]["path"]]
        assert probe["httpGet"]["port"] in {port["name"] for port in container["ports"]}


def test_every_variable_is_a_setting_with_a_good_value(environment: dict[str, str]) -> None:
    given = {
        name.removeprefix("PPOOL_").lower(): value
        for name, value in environment.items()
        if not name.startswith("OTEL_")
    }
    Settings.model_validate(given)  # unknown names are forbidden there


def test_the_grace_period_covers_leaving_and_half_as_much_again(
    pod: dict[str, Any], container: dict[str, Any], environment: dict[str, str]
) -> None:
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    leaving += seconds(environment, "DRAIN_DELAY") + seconds(environment, "REQUEST_TIMEOUT")
    assert pod["terminationGracePeriodSeconds"] == leaving * 1.5


def test_every_selector_selects_the_pods(objects: Any) -> None:
    template = of_kind(objects, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    selectors = [of_kind(objects, "Service")["spec"]["selector"]]
    for kind, key in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        selectors.append(of_kind(objects, kind)["spec"][key]["matchLabels"])
    spreads = template["spec"]["topologySpreadConstraints"]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in spreads]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_ports_are_named_once_and_used_by_name(objects: Any, container: dict[str, Any]) -> None:
    [port] = container["ports"]
    assert port["containerPort"] == 8000
    assert of_kind(objects, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    [rule] = of_kind(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [entry["port"] for entry in rule["ports"]] == [port["name"]]


def test_memory_is_limited_and_the_cpu_is_not_throttled(container: dict[str, Any]) -> None:
    resources = container["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    assert "cpu" not in resources["limits"]


@pytest.mark.parametrize("overlay", ["gpu", "gpu-keda"])
def test_a_gpu_pod_asks_for_a_gpu_and_never_waits_for_a_spare_one(
    rendered: Any, overlay: str
) -> None:
    spec = of_kind(rendered(overlay), "Deployment")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith(":gpu")
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize("component", ["model-image", "model-volume"])
def test_a_model_is_mounted_where_the_setting_points(rendered: Any, component: str) -> None:
    pod = of_kind(rendered(component), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts) == {"tmp", "models"}
    assert mounts["models"]["readOnly"]
    assert variables["PPOOL_MODEL"].startswith(mounts["models"]["mountPath"] + "/")
    assert len(variables) > 1
    for initial in pod.get("initContainers", []):
        assert initial["command"][-1] == variables["PPOOL_MODEL"]


def test_keys_come_from_a_secret_alone(rendered: Any) -> None:
    pod = of_kind(rendered("api-keys"), "Deployment")["spec"]["template"]["spec"]
    [keys] = [e for e in pod["containers"][0]["env"] if e["name"] == "PPOOL_API_KEYS"]
    assert set(keys) == {"name", "valueFrom"}
    assert set(keys["valueFrom"]) == {"secretKeyRef"}


def test_a_model_of_a_store_is_kept_where_the_pod_can_write(rendered: Any) -> None:
    pod = of_kind(rendered("model-store"), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert variables["PPOOL_MODEL_CACHE"] == mounts["models"]["mountPath"]
    assert not mounts["models"].get("readOnly")
    [secret] = container["envFrom"]
    assert secret["secretRef"]["optional"]
    assert "://" in variables["PPOOL_MODEL"]


def test_nothing_leaves_the_pod_but_spans_and_what_asks_for_models(rendered: Any) -> None:
    assert of_kind(rendered("cpu"), "NetworkPolicy")["spec"]["egress"] == []
    rules = of_kind(rendered("model-store"), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {443, 80, 53}
    rules = of_kind(rendered("tracing"), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {4318, 53}
    pod = of_kind(rendered("tracing"), "Deployment")["spec"]["template"]["spec"]
    variables = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith(":4318")


@pytest.mark.parametrize("component", ["gateway", "ingress"])
def test_the_way_in_waits_longer_than_the_service_and_ends_at_it(
    rendered: Any, component: str
) -> None:
    objects = rendered(component)
    limit = Settings().request_timeout_seconds
    service = of_kind(objects, "Service")
    [port] = service["spec"]["ports"]
    if component == "ingress":
        ingress = of_kind(objects, "Ingress")
        notes = ingress["metadata"]["annotations"]
        prefix = "nginx.ingress.kubernetes.io/"
        assert float(notes[f"{prefix}proxy-read-timeout"]) > limit
        allowed = notes[f"{prefix}proxy-body-size"]
        assert int(allowed.removesuffix("m")) * 2**20 > Settings().max_body_bytes
        [rule] = ingress["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
        assert [entry["hosts"] for entry in ingress["spec"]["tls"]] == [[rule["host"]]]
    else:
        gateway, route = of_kind(objects, "Gateway"), of_kind(objects, "HTTPRoute")
        [rule] = route["spec"]["rules"]
        assert float(rule["timeouts"]["request"].removesuffix("s")) > limit
        backend = {"name": service["metadata"]["name"], "port": port["port"]}
        assert rule["backendRefs"] == [backend]
        [listener] = gateway["spec"]["listeners"]
        [parent] = route["spec"]["parentRefs"]
        assert parent == {"name": gateway["metadata"]["name"], "sectionName": listener["name"]}
        assert [listener["hostname"]] == route["spec"]["hostnames"]


def test_the_custom_objects_have_the_shape_of_their_definitions(rendered: Any) -> None:
    """Their schemas are in no package; these are the required fields of each."""
    scaled = of_kind(rendered("gpu-keda"), "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "prometheus"
        # KEDA replaces a failed trigger by `fallback` only for averages.
        assert trigger["metricType"] == "AverageValue"
        assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
        assert float(trigger["metadata"]["threshold"]) > 0
    monitor = of_kind(rendered("monitoring"), "ServiceMonitor")
    service = of_kind(rendered("cpu"), "Service")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "ppool"
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_autoscalers_and_the_adapter_speak_of_the_same_metrics(rendered: Any) -> None:
    adapter = yaml.safe_load((K8S / "prometheus-adapter.yaml").read_text())
    offered = {
        re.match(r"\w+", rule["seriesQuery"])[0]  # type: ignore[index]
        for rule in adapter["rules"]["custom"]
    }
    for overlay in ("cpu", "gpu"):
        scaler = of_kind(rendered(overlay), "HorizontalPodAutoscaler")
        assert scaler["apiVersion"] == "autoscaling/v2"
        asked = {metric["pods"]["metric"]["name"] for metric in walk(scaler) if "pods" in metric}
        assert "ppool_queue_seconds" in asked
        assert asked <= offered


def test_no_object_names_an_image_without_a_tag(objects: Any) -> None:
    images = [entry["image"] for entry in walk(objects) if "image" in entry]
    assert images
    assert all(re.search(r":(?!latest)[\w.-]+$", image) for image in images)


def test_compose_starts_what_the_dashboard_asks_for() -> None:
    project = yaml.safe_load((K8S.parent / "compose.yaml").read_text())
    services, configs = project["services"], project["configs"]
    used = {entry["source"] for one in services.values() for entry in one.get("configs", ())}
    assert used == set(configs)
    dashboard = K8S.parent / configs["dashboard"]["file"]
    jobs = set(re.findall(r'job=\\"(\w+)', dashboard.read_text()))
    [scraped] = yaml.safe_load(configs["prometheus"]["content"])["scrape_configs"]
    assert jobs == {scraped["job_name"]}
    assert scraped["static_configs"] == [{"targets": ["ppool:8000"]}]
    grace = float(services["ppool"]["stop_grace_period"].removesuffix("s"))
    assert grace >= 1.5 * Settings().request_timeout_seconds
