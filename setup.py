"""Build the native library; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

NATIVE = Path("ppool/native")
PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]

if sys.platform == "win32":
    FLAGS = ["/std:c++17", "/O2", "/EHsc"]
else:
    # Multiply-adds are written out in ppool/native. Were the compiler free to form more of them,
    # a result could depend on whether its element fell in a vector or in the rest.
    FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    FLAGS += ["-fvisibility=hidden", "-pthread", "-g0", "-Wall", "-Wextra"]


class AnyPython(bdist_wheel):
    """The library calls nothing of Python's, so one wheel does for every version."""

    def get_tag(self) -> tuple[str, str, str]:
        """The platform that setuptools found, and any Python 3."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"bdist_wheel": AnyPython},
    ext_modules=[
        # A plain shared library, found by path and never imported. Without a compiler the
        # install goes on (optional) and the portable path is used.
        Extension(
            "ppool._native",
            sources=sorted(
                path.as_posix()
                for folder in (NATIVE, NATIVE / "cpu", NATIVE / "ort")
                for path in folder.glob("*.cc")
            ),
            depends=sorted(path.as_posix() for path in NATIVE.rglob("*.h")),
            define_macros=[("PPOOL_VERSION", f'"{PROJECT["version"]}"')],
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread", "-ldl"],
            language="c++",
            optional=True,
        )
    ],
)
