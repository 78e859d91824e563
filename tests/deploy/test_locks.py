"""The lock files: hashed, from nowhere in particular, and enough for what is asked."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def locked(name: str) -> dict[str, str]:
    """Version by package."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = re.findall(
        r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^\S", text, re.MULTILINE))
    return dict(entries)


@pytest.mark.parametrize(("lock", "extra"), [("cpu", "serve"), ("gpu", "serve-gpu")])
def test_a_lock_satisfies_what_pyproject_asks(lock: str, extra: str) -> None:
    versions = locked(lock)
    extras = (extra, "service", "store", "grpc")
    asked = [Requirement(line) for name in extras for line in EXTRAS[name]]
    for requirement in asked:
        if requirement.name != "ppool":
            version = versions.get(canonicalize_name(requirement.name), "none")
            assert version != "none", f"{requirement} is not in locks/{lock}.txt; run: make lock"
            assert version in requirement.specifier


def test_what_builds_is_locked_too() -> None:
    asked = (ROOT / "locks" / "build.in").read_text().split()
    versions = locked("build")
    for requirement in map(Requirement, asked):
        assert versions[requirement.name] in requirement.specifier


def test_the_images_hold_no_training_stack() -> None:
    for lock in ("cpu", "gpu"):
        assert not {"torch", "onnx", "opencv-python-headless", "pytest"} & set(locked(lock))
