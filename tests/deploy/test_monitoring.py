"""Alerts and dashboard: promtool's tests, and the real Prometheus on the service under load."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.running import MONITORING, ROOT, Prometheus, alert_rules, prometheus
from ppool.service.settings import Settings
from tests.deploy.promql import metrics_of
from tests.service.harness import encoded, photo

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
FROM_THE_CLUSTER = {
    "up",
    "container_memory_working_set_bytes",
    "kube_pod_container_resource_limits",
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in alert_rules()["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


def queries() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def asked_by_autoscalers() -> set[str]:
    files = [ROOT / "k8s" / "prometheus-adapter.yaml", *(ROOT / "k8s").rglob("*scale*.yaml")]
    return {name for file in files for name in re.findall(r"\bppool_\w+", file.read_text())}


@pytest.fixture(scope="module")
def exported(address: str) -> set[str]:
    """Every series name of ``/metrics``."""
    families = text_string_to_metric_families(httpx.get(f"{address}/metrics").text)
    return {family.name + end for family in families for end in SUFFIXES.get(family.type, ("",))}


def test_every_metric_that_is_asked_for_is_exported(exported: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()] + [query for _, query in queries()]
    asked = {name for expression in expressions for name in metrics_of(expression)}
    assert len(asked) > 20
    assert asked | asked_by_autoscalers() <= exported | recorded | FROM_THE_CLUSTER


def test_the_latency_objective_is_a_bucket_of_the_histogram(address: str) -> None:
    httpx.post(f"{address}/segment", content=encoded(photo()))
    bounds = set(
        re.findall(
            r'ppool_stage_seconds_bucket\{le="([^"]+)"', httpx.get(f"{address}/metrics").text
        )
    )
    asked = {bound for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert asked
    assert asked <= bounds


def test_every_alert_is_explained_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    headings = {
        f"docs/runbook.md#{title.lower()}" for title in re.findall(r"^## (\w+)$", runbook, re.M)
    }
    alerts = {rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    assert alerts == headings


def test_the_runbook_names_real_panels_and_settings() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    named = set(re.findall(r"(?<!\*)\*([A-Z][\w ,]+)\*(?!\*)", runbook))
    assert len(named) > 5
    assert named <= {panel["title"] for panel in panels()}
    settings = {name.lower() for name in re.findall(r"PPOOL_([A-Z_]+)", runbook)}
    assert settings <= set(Settings.model_fields)


def test_panels_fit_the_grid_without_overlap() -> None:
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels())
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_every_alert_fires_and_stays_silent(tmp_path: Path) -> None:
    cases = ROOT / "tests" / "deploy" / "alerts_test.yaml"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alert_rules()))
    shutil.copy(cases, tmp_path)
    subprocess.run(["promtool", "test", "rules", cases.name], cwd=tmp_path, check=True)
    seen: dict[str, set[bool]] = {}
    for case in yaml.safe_load(cases.read_text())["tests"]:
        for check in case["alert_rule_test"]:
            seen.setdefault(check["alertname"], set()).add(bool(check.get("exp_alerts")))
    assert seen == {rule["alert"]: {True, False} for rule in rules() if "alert" in rule}


@pytest.fixture
def watching(address: str, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus(address, tmp_path, scrape_seconds=0.25) as server:
        yield server


def has_data(server: Prometheus, expression: str) -> bool:
    """Whether a query of the dashboard gives a number, over the last ten seconds."""
    query = {"query": expression.replace("$__rate_interval", "10s")}
    result = server.ask("query", query)["result"]
    return any(sample["value"][1] != "NaN" for sample in result)


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Ask again as soon as there is an answer, until it is yes or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
    return False


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_under_load_every_panel_has_data_and_no_rule_fails(
    address: str, watching: Prometheus
) -> None:
    body = encoded(photo(500, 300), "JPEG")
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not stop.is_set():
                client.post("/segment", content=body)

    missing = set(queries())

    def complete() -> bool:
        for title, expression in sorted(missing):
            if has_data(watching, expression):
                missing.discard((title, expression))
        return not missing

    with ThreadPoolExecutor(6) as clients:
        for _ in range(6):
            clients.submit(load)
        try:
            assert until(complete), missing
            groups = watching.ask("rules")["groups"]
            health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
            assert set(health.values()) == {"ok"}
            assert len(health) == len(rules())
        finally:
            stop.set()
