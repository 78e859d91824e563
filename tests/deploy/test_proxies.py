"""The proxies of docs/how-to/proxy.md, started with the configurations that the page shows."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.running import free_port
from ppool.service.settings import Settings
from tests.service.harness import encoded, photo

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "proxy.md").read_text("utf-8")
COMMANDS = {
    "nginx.conf": ["nginx", "-p", ".", "-c", "nginx.conf", "-g", "daemon off;"],
    "Caddyfile": ["caddy", "run", "--config", "Caddyfile"],
    "routes.yaml": [
        "traefik",
        "--entrypoints.web.address=127.0.0.1:8080",
        "--providers.file.filename=routes.yaml",
    ],
}


@pytest.fixture(scope="module", params=COMMANDS)
def proxied(
    request: pytest.FixtureRequest, address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of the service behind one proxy, under the prefix."""
    name = request.param
    command = COMMANDS[name]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = shutil.which(command[0], path=path)
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    folder = tmp_path_factory.mktemp("proxy")
    block = re.search(rf'```\w+ title="{name}"\n(.*?)```', PAGE, re.S)
    assert block is not None
    port = free_port()
    text = block[1].replace("127.0.0.1:8000", address.removeprefix("http://"))
    (folder / name).write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    words = [word.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for word in command[1:]]
    with subprocess.Popen(
        [program, *words], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/ppool", timeout=60) as client:
                answers(client, process)
                yield client
        finally:
            process.terminate()
            process.communicate(timeout=30)


def answers(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    """Wait until the proxy listens; what it says if it ends instead."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[1]
        try:
            # Traefik listens before it has read where to.
            if client.get("/livez").status_code == 200:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.05)
    pytest.fail("the proxy did not listen")


def test_a_photo_comes_back_as_its_mask(proxied: httpx.Client, address: str) -> None:
    body = encoded(photo(40, 60))
    direct = httpx.post(f"{address}/segment", content=body)
    answer = proxied.post("/segment", content=body, headers={"X-Request-Id": "mine"})
    assert answer.status_code == direct.status_code == 200
    assert answer.content == direct.content
    assert answer.headers["x-request-id"] == "mine"


def test_a_large_photo_passes_and_the_service_itself_refuses_a_larger_one(
    proxied: httpx.Client,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    large = encoded(noise)
    assert len(large) > 2**22
    assert proxied.post("/segment", content=large).status_code == 200
    answer = proxied.post("/segment", content=bytes(Settings().max_body_bytes + 1))
    assert answer.status_code == 413
    assert answer.json()["type"].startswith("urn:ppool:problem:")


@pytest.mark.parametrize("page", ["", "/docs"])
def test_a_page_loads_what_it_needs_from_under_the_prefix(proxied: httpx.Client, page: str) -> None:
    shown = proxied.get(page or "/")
    targets = re.findall(r'(?:src|href)="(?!data:)([^"#]+)"', shown.text)
    assert targets
    for target in targets:
        asked = shown.url.join(target)
        assert asked.path.startswith("/ppool/"), target
        assert proxied.get(asked).status_code == 200, target
