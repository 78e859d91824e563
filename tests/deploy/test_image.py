"""The built image: started as a cluster starts it, it segments a photo.

Skipped unless `IMAGE` names an image that exists, because building one takes minutes:

    docker build --target cpu --tag ppool:cpu .
    IMAGE=ppool:cpu python -m pytest tests/deploy/test_image.py

Without Docker it runs an image of buildah's in bubblewrap (as root): same user, environment and
read-only root.
"""

import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("IMAGE", "")

pytestmark = pytest.mark.skipif(not IMAGE, reason="IMAGE names no image; see the module")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def command() -> Iterator[list[str]]:
    """What starts a program of the image; the program and its arguments follow."""
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "info"], check=False, capture_output=True).returncode
    ):
        restricted = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        run = ["docker", "run", "--rm", "--init", *restricted, "--tmpfs=/tmp", "--network=host"]
        yield [*run, "--env=PPOOL_PORT=0", "--entrypoint=/usr/bin/env", IMAGE]
        return
    container = output("buildah", "from", "--pull-never", IMAGE)
    try:
        root = output("buildah", "mount", container)
        config = json.loads(output("buildah", "inspect", container))["OCIv1"]["config"]
        user, group = config["User"].split(":")
        run = ["bwrap", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev"]
        run += ["--tmpfs", "/tmp", "--unshare-user", "--uid", user, "--gid", group]  # noqa: S108
        run += ["--die-with-parent", "--clearenv"]
        for name, value in (entry.split("=", 1) for entry in config["Env"]):
            run += ["--setenv", name, value]
        yield [*run, "--setenv", "PPOOL_PORT", "0", "/usr/bin/env"]
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def test_it_starts_without_root_on_a_read_only_root_and_segments_a_photo(
    command: list[str],
) -> None:
    photo = (ROOT / "ppool" / "service" / "playground" / "desk.jpg").read_bytes()
    start = time.monotonic()
    with subprocess.Popen(
        [*command, "ppool", "serve"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        log = []
        try:
            for line in process.stderr:
                log.append(line)
                if "ready after" in line:
                    break
            print(f"ready {time.monotonic() - start:.2f} s after the command; its log:", *log)
            port = re.search(r"0\.0\.0\.0:(\d+)", "".join(log))
            assert port, log
            address = f"http://127.0.0.1:{port[1]}"
            assert httpx.get(f"{address}/readyz").status_code == 200
            [model] = httpx.get(f"{address}/models").json()
            assert model["kernels"] == "native"
            answer = httpx.post(f"{address}/segment", content=photo, timeout=60)
            assert answer.status_code == 200
            with (
                Image.open(io.BytesIO(answer.content)) as mask,
                Image.open(io.BytesIO(photo)) as of,
            ):
                assert mask.size == of.size
                assert len(mask.getcolors() or ()) > 1
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_it_holds_no_compiler_no_torch_and_lets_nobody_write(command: list[str]) -> None:
    probe = """
import importlib.util, json, os, pathlib, shutil
def writable(folder):
    try:
        pathlib.Path(folder, "x").write_text("")
    except OSError:
        return False
    return True
print(json.dumps({
    "user": os.getuid(),
    "modules": [m for m in ("torch", "onnx", "cv2", "pip") if importlib.util.find_spec(m)],
    "compilers": [c for c in ("cc", "gcc", "g++", "clang", "make") if shutil.which(c)],
    "writable": [f for f in ("/", "/opt/ppool", "/etc", "/usr", "/tmp") if writable(f)],
}))
"""
    found = json.loads(output(*command, "python3", "-c", probe))
    assert found == {"user": 10001, "modules": [], "compilers": [], "writable": ["/tmp"]}  # noqa: S108


def test_the_bill_of_materials_lists_what_is_installed(command: list[str]) -> None:
    bill = json.loads(output(*command, "cat", "/opt/ppool/sbom.cdx.json"))
    listed = {entry["name"].lower().replace("_", "-") for entry in bill["components"]}
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    installed = output(*command, "python3", "-c", code).split()
    assert {name.lower().replace("_", "-") for name in installed} == listed
