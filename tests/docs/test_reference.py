"""Pages of the repository that are read off the code, and links between all of its pages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.reference import FOLDER

ROOT = Path(__file__).parents[2]


def test_reference_pages_are_up_to_date() -> None:
    # In a process of its own: other tests register data sets, which the help lists.
    code = "import json; from docs.reference import committed; print(json.dumps(committed()))"
    rendered = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name, text in json.loads(rendered.stdout).items():
        page = (FOLDER / name).read_text("utf-8")
        assert page == text, "write them anew with: python -m docs.reference"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git knows what belongs to the project")
def test_pages_that_are_linked_are_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = {ROOT / name for name in listed.stdout.splitlines()}
    there = files | {folder for file in files for folder in file.parents}
    for page in (file for file in files if file.suffix == ".md" and file.exists()):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            target = link.partition("#")[0]
            if target and "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).resolve() in there, f"{page}: {link}"
