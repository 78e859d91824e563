"""Every command and every line of Python in the documentation runs and prints what is shown.

Blocks of a page run in order, in one folder that looks like a checkout:

- `console`: lines after `$` are run by bash; what follows is what they print, white space aside,
  `...` standing for anything. `ppool serve` stays up until the page ends or starts another, and
  `ppool train run` takes two small steps.
- `python`: run in one namespace.
- `title="name"`: written to that file.

What cannot run here is listed in ELSEWHERE, with the test that covers it.
"""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from benchmarks.running import free_port
from tests.docs.stand_ins import put_networks, put_photos
from tests.service.traffic import served

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "research/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
GENERATED = {ROOT / "docs" / "reference" / f"{n}.md" for n in ("commands", "metrics", "settings")}

# Shown for the reader, or part of a file that other tests read.
SHOWN = {"text", "json", "promql", "yaml"}

TRAINING = r"\.venv/bin/ppool train run "
TWO_STEPS = " --iterations 2 --batch-size 2"

# `make serve` is that and its set-up.
SERVE = (
    r"(?P<settings>(PPOOL_\w+=\S+ )*)(make serve|\.venv/bin/ppool serve)"
    r"(?P<arguments>.*)"
)

ELSEWHERE = {
    r"make (test|stress|sanitize|check|bench)\b": "run the tests themselves; CI starts with them",
    r"make docs\b": "tests/docs/test_site.py runs its commands",
    r"(make wheel|WHEEL=)": "tests/deploy/test_packages.py, in CI against what make wheel built",
    r"make (cuda|tensorrt)\b": "tests/native compiles both, where compilers and headers are",
    r"(docker|IMAGE=)": "tests/deploy/test_image.py, in CI against the built image",
    r"kubectl (apply|get|logs|describe|rollout)": "needs a cluster; tests/deploy/test_manifests.py",
    r"kustomize edit": "needs a registry; tests/deploy/test_manifests.py renders the overlays",
    r"git (tag|push)": "needs a remote repository",
    r"pip install|python3 -m venv": "needs the network; so does tests/deploy/test_packages.py",
    r"research (pages|compare|run|table|evaluation|mechanism)": "needs data or hours; its tests",
    r"python -m research figure": "needs a trained network, or takes a minute; tests/training",
    r"(s3|gs|https|oci)://\S+(@|#)sha256": "needs that store; tests/service/test_store.py",
    r"cosign verify|gh attestation": "needs a published image",
    r"traefik": "stays; tests/deploy/test_proxies.py runs it",
    r"torchrun": "needs data and hours; tests/training",
    r"ppool export runs/": "needs a trained network; tests/export",
    r"pip-licenses": "needs the network; CI runs it",
    r"ppool tensorrt": "needs a GPU; tests/export/test_tensorrt.py",
    r"python -m benchmarks\.(gpu|pages|capacity (measure|simulate|cluster))": "takes minutes",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: ``kind`` is its language, ``title`` the file it is."""

    kind: str
    title: str | None
    text: str
    line: int

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command, continued lines joined, with the output shown below it."""
        for part in re.split(r"^\$ ", self.text, flags=re.M)[1:]:
            match = re.match(r"(?s)((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part)
            assert match is not None
            yield match[1], match[2]


def blocks(page: Path) -> list[Block]:
    found = []
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "fence":
            assert token.map is not None
            title = re.search(r'title="([^"]*)"', token.info)
            kind = token.info.split()[0] if token.info else ""
            found.append(Block(kind, title and title[1], token.content, token.map[0] + 1))
    return found


class Reader:
    """Does what a page says, in a folder of its own."""

    def __init__(self, folder: Path, resources: ExitStack) -> None:
        self.folder = folder
        self.address = ""
        self.grpc_port = ""
        self.names: dict[str, Any] = {}
        self._server = ExitStack()
        resources.push(self._server)

    def follow(self, block: Block) -> None:
        if block.title is not None:
            (self.folder / block.title).write_text(block.text)
        elif block.kind == "python":
            code = compile(self.here(block.text), f"line {block.line}", "exec")
            # A reader sees a library's warnings and goes on.
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                exec(code, self.names)  # noqa: S102
        elif block.kind == "console":
            for command, shown in block.commands():
                if starts := re.match(SERVE, command):
                    self.serve(starts["settings"], starts["arguments"])
                elif not any(re.search(pattern, command) for pattern in ELSEWHERE):
                    self.run(command, shown)
        else:
            assert block.kind in SHOWN, f"line {block.line}: {block.kind!r} is none of {SHOWN}"

    def serve(self, settings: str, arguments: str) -> None:
        self._server.close()
        words = [str(f) if (f := self.folder / w).exists() else w for w in arguments.split()]
        environment = dict(setting.split("=", 1) for setting in settings.split())
        if "PPOOL_GRPC_PORT" in environment:
            self.grpc_port = environment["PPOOL_GRPC_PORT"] = str(free_port())
        server = self._server.enter_context(served(*words, **environment))
        self.address = server.address.removeprefix("http://")

    def here(self, text: str) -> str:
        """The text with the addresses of the server that runs."""
        text = re.sub("localhost:8001", f"localhost:{self.grpc_port}", text)
        return re.sub(r"(localhost|127\.0\.0\.1):8000", self.address, text)

    def run(self, command: str, shown: str) -> None:
        if re.match(TRAINING, command):
            command += TWO_STEPS
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self.here(command)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "100", "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
            text=True,
            check=False,
        )
        printed = result.stdout.replace("\r", "")
        assert result.returncode == 0, f"{command}\n{printed}"
        if shown:
            parts = (re.escape("".join(part.split())) for part in shown.split("..."))
            assert re.fullmatch(".*".join(parts), "".join(printed.split())), f"{command}\n{printed}"


@contextmanager
def checkout(folder: Path) -> Iterator[Path]:
    """A folder with links to everything in the repository, in which to write anything."""
    for entry in ROOT.iterdir():
        if entry.name not in {"build", "data", "dist", "runs", "site", ".git", ".venv"}:
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p not in GENERATED], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_reader_gets_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    found = blocks(page)
    with checkout(tmp_path) as folder, ExitStack() as resources:
        put_networks(folder)
        put_photos(folder / "own")
        reader = Reader(folder, resources)
        for block in found:
            reader.follow(block)


def test_every_exception_is_still_needed() -> None:
    commands = [
        command for page in PAGES for block in blocks(page) for command, _ in block.commands()
    ]
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, command) for command in commands), pattern


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as resources:
        reader = Reader(tmp_path, resources)
        reader.run("echo one two", "one ...\n")
        with pytest.raises(AssertionError, match="one two"):
            reader.run("echo one two", "one\n")
        with pytest.raises(AssertionError, match="false"):
            reader.run("false", "")
