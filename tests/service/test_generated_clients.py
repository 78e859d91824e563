"""Clients that generators make of the OpenAPI document: each segments, and sees an error."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppool.service.http.app import create_app
from ppool.service.settings import Settings
from tests.service.harness import encoded, photo
from tests.service.traffic import PATIENCE_SECONDS, Server, served

# A folder with openapi-typescript, openapi-fetch, typescript and @types/node in it.
NODE_MODULES = os.environ.get("NODE_MODULES", "")

PYTHON = """
import sys

from generated import AuthenticatedClient, errors
from generated.api.models import models
from generated.api.segmentation import segment
from generated.models import Problem, SegmentFilesBody, SegmentFilesBodyAlpha, SegmentReply
from generated.types import File

address, path = sys.argv[1:]
photo = File(payload=open(path, "rb").read(), file_name="photo.png", mime_type="image/png")
client = AuthenticatedClient(base_url=address, token="secret")

plain = segment.sync(client=client, body=SegmentFilesBody(image=[photo, photo]))
assert isinstance(plain, SegmentReply), plain
assert [(found.width, found.height) for found in plain.images] == [(60, 40)] * 2
assert plain.images[0].name == "photo.png"

body = SegmentFilesBody(image=[photo], alpha=SegmentFilesBodyAlpha.MAPS)
alpha = segment.sync(client=client, body=body, overlay=False)
assert [found.stage for found in alpha.images[0].alpha] == ["pool1", "pool2"]

planes = segment.sync(client=client, body=body, planes="bright,dark").images[0].planes
assert [plane.name for plane in planes] == ["bright", "dark"]

problem = segment.sync(client=client, body=body, model="cats")
assert isinstance(problem, Problem), problem
assert (problem.status, problem.type_) == (404, "urn:ppool:problem:unknown-model")
assert [about.name for about in models.sync(client=client)] == ["tiny"]

stranger = AuthenticatedClient(base_url=address, token="guess")
assert segment.sync(client=stranger, body=body).status == 401
"""

TYPESCRIPT = """
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./generated.mjs";

type Json = "application/json" | "application/problem+json";
const [address, path] = process.argv.slice(2) as [string, string];
const headers = { "X-API-Key": "secret" };
const client = createClient<paths, Json>({ baseUrl: address, headers });

const segment = (model?: string) =>
  client.POST("/segment", {
    params: { query: { model, alpha: "maps" }, header: { Accept: "application/json" } },
    body: readFileSync(path, "latin1"),
    bodySerializer: (content) => Buffer.from(content as string, "latin1"),
    headers: { "Content-Type": "image/png" },
  });

const good = await segment();
const image = good.data!.images[0]!;
const bad = await segment("cats");
const stages = image.alpha!.map((entry) => entry.stage);
const { status, type } = bad.error!;
console.log(JSON.stringify([image.width, image.height, stages, status, type]));
"""


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "1", PPOOL_API_KEYS="secret") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the document and a photo."""
    document = create_app(Settings(api_keys="secret")).openapi()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "photo.png").write_bytes(encoded(photo()))
    return tmp_path


def run(folder: Path, *command: str) -> str:
    """What a command prints; what it complains about is the failure."""
    options = {"cwd": folder, "capture_output": True, "text": True}
    found = subprocess.run(command, check=False, timeout=PATIENCE_SECONDS, **options)
    assert not found.returncode, found.stdout + found.stderr
    return found.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("openapi_python_client") is None,
    reason="needs: pip install openapi-python-client",
)
def test_a_client_by_openapi_python_client(server: Server, folder: Path) -> None:
    generator = (sys.executable, "-m", "openapi_python_client", "generate")
    options = ("--path", "openapi.json", "--output-path", "generated", "--meta", "none")
    run(folder, *generator, *options)
    (folder / "use.py").write_text(PYTHON)
    run(folder, sys.executable, "use.py", server.address, "photo.png")


@pytest.mark.skipif(
    not NODE_MODULES,
    reason="needs: npm install openapi-typescript openapi-fetch typescript@5 @types/node, "
    "and their folder as NODE_MODULES",
)
def test_types_by_openapi_typescript(server: Server, folder: Path) -> None:
    (folder / "node_modules").symlink_to(NODE_MODULES)
    commands = folder / "node_modules" / ".bin"
    run(folder, str(commands / "openapi-typescript"), "openapi.json", "-o", "generated.d.mts")
    (folder / "use.mts").write_text(TYPESCRIPT)
    strict = ("--strict", "--noUncheckedIndexedAccess", "--skipLibCheck", "--types", "node")
    run(
        folder,
        str(commands / "tsc"),
        *strict,
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "use.mts",
    )
    found = run(folder, "node", "use.mjs", server.address, "photo.png")
    wanted = [60, 40, ["pool1", "pool2"], 404, "urn:ppool:problem:unknown-model"]
    assert json.loads(found) == wanted
