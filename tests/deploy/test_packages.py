"""What is released: the source archive, and a wheel in an environment of its own.

The wheel is skipped unless `WHEEL` names one, because building and installing it takes minutes:

    make wheel
    WHEEL=$(echo dist/*.whl) python -m pytest tests/deploy/test_packages.py
"""

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from ppool import __version__

ROOT = Path(__file__).parents[2]
WHEEL = os.environ.get("WHEEL", "")
PHOTO = ROOT / "ppool" / "service" / "playground" / "notes.jpg"

# As a stranger's shell would have it: nothing of the checkout is on a path.
STRANGER = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PPOOL_"))
}


def output(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=STRANGER, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git knows what belongs to the project")
def test_the_source_archive_holds_every_tracked_file(tmp_path: Path) -> None:
    output(
        *(sys.executable, "-m", "build", "--sdist", "--no-isolation"),
        *("--outdir", tmp_path, "."),
        cwd=ROOT,
    )
    (archive,) = tmp_path.iterdir()
    assert archive.name == f"ppool-{__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    # The rooms that ppool/ links to are packed once, where they are imported from.
    linked = tuple(f"{path.name}/" for path in (ROOT / "ppool").iterdir() if path.is_symlink())
    for name in output("git", "ls-files", cwd=ROOT).splitlines():
        home = f"ppool/{name}" if name.startswith(linked) else name
        assert home in packed or name.startswith("."), name


def test_the_changelog_is_in_its_form() -> None:
    headings = re.findall("^##+ .*$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    releases = [heading for heading in headings if heading.startswith("## ")]
    assert releases[0] == "## [Unreleased]"
    for release in releases[1:]:
        assert re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release), release
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {heading[4:] for heading in headings if heading not in releases} <= kinds


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with nothing but the wheel and what serving needs."""
    environment = tmp_path_factory.mktemp("environment")
    output(sys.executable, "-m", "venv", environment, cwd=environment)
    programs = environment / "bin"
    wanted = f"{Path(WHEEL).resolve()}[serve]"
    output(programs / "python", "-m", "pip", "install", "--quiet", wanted, cwd=environment)
    return programs


@pytest.fixture(scope="module")
def address(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with subprocess.Popen(
        [programs / "ppool", "serve", "--port", "0"],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=STRANGER,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log = ""
        try:
            for line in process.stderr:
                log += line
                if "ready after" in line:
                    break
            found = re.search(r"listening on (\S+),", log)
            assert found, log
            yield found[1]
        finally:
            process.terminate()
            process.communicate()


@pytest.mark.skipif(not WHEEL, reason="WHEEL names no wheel; see the module")
class TestWheel:
    def test_it_says_its_version(self, programs: Path, tmp_path: Path) -> None:
        printed = output(programs / "ppool", "--version", cwd=tmp_path)
        assert printed == f"ppool {__version__}\n"

    def test_it_brings_no_pytorch(self, programs: Path, tmp_path: Path) -> None:
        installed = output(programs / "python", "-m", "pip", "freeze", cwd=tmp_path)
        assert "ppool" in installed
        assert not re.search("^(torch|onnx)[=@ ]", installed, re.M)

    def test_it_turns_a_photo_into_a_mask(self, address: str) -> None:
        answer = httpx.post(f"{address}/segment", content=PHOTO.read_bytes(), timeout=60)
        assert answer.status_code == 200, answer.text
        with Image.open(PHOTO) as photo, Image.open(io.BytesIO(answer.content)) as mask:
            assert mask.size == photo.size
            assert len(mask.getcolors() or ()) > 1

    def test_its_kernels_are_native(self, address: str) -> None:
        (model,) = httpx.get(f"{address}/models").json()
        assert model["kernels"] == "native"
