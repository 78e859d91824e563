"""Builds what needs more than a C++ compiler: ``python -m ppool.native.build cuda``.

``cuda`` compiles the kernels with nvcc into ``ppool/_cuda.so``, which PyTorch and ONNX Runtime use
from then on; ``emulated`` the same kernels with a C++ compiler, to run on the host in tests;
``tensorrt`` the plugin libraries. None is needed to install, serve or test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "build_cuda",
    "build_emulated",
    "build_tensorrt",
    "cuda_headers",
    "cxx_compiler",
    "find_nvcc",
]

NATIVE = Path(__file__).resolve().parent
PACKAGE = NATIVE.parent
KERNELS = NATIVE / "cuda" / "launch.cu"

# Turing to Blackwell; PTX of the last lets later ones compile it for themselves.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

_HOST = ["-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
_CXX = ["-std=c++17", "-O2", *_HOST, "-shared"]


def find_nvcc() -> str | None:
    """Path of the CUDA compiler: ``CUDA_HOME``, then ``PATH``; None without one."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


def _nvcc(architectures: Sequence[int], threads: int) -> list[str]:
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError(
            "nvcc: not found in CUDA_HOME or PATH; install the CUDA toolkit (or its pip packages "
            "nvidia-cuda-nvcc, nvidia-cuda-runtime and nvidia-cuda-cccl) and put nvcc on PATH"
        )
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    last = architectures[-1]
    # A static runtime: the library loads, and says that there is no GPU, where CUDA is absent.
    return [
        nvcc, "-std=c++17", "-O3", *codes, f"-gencode=arch=compute_{last},code=compute_{last}",
        f"--threads={threads}", "-Xfatbin=-compress-all", "--cudart=static",
        "--shared", "-Werror=all-warnings",
        # The host compiler meets the device's unroll pragmas, too.
        f"-Xcompiler={','.join([*_HOST, '-Wno-unknown-pragmas'])}",
    ]  # fmt: skip


def _run(command: Sequence[str | Path], output: Path) -> Path:
    """Compile to a temporary name first: a broken build leaves no half-written library."""
    unfinished = output.with_name(output.name + ".part")
    try:
        subprocess.run([*map(str, command), "-o", str(unfinished)], check=True)  # noqa: S603
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return output


def build_cuda(
    output: Path = PACKAGE / "_cuda.so",
    architectures: Sequence[int] = ARCHITECTURES,
    threads: int = 1,
) -> Path:
    """Compile the kernels for these compute capabilities.

    Raises:
        FileNotFoundError: without nvcc, saying how to get it.
        subprocess.CalledProcessError: if it fails or warns.
    """
    return _run([*_nvcc(architectures, threads), KERNELS], output)


def build_emulated(output: Path, flags: Sequence[str] = ()) -> Path:
    """Compile the kernels to run on the host, for tests without a GPU.

    Raises:
        FileNotFoundError: without a C++ compiler.
        subprocess.CalledProcessError: if it fails.
    """
    return _run([cxx_compiler(), *_CXX, "-Werror", *flags, "-x", "c++", KERNELS], output)


def cxx_compiler() -> str:
    """Path of the C++ compiler: ``CXX``, else the usual names.

    Raises:
        FileNotFoundError: without one.
    """
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise FileNotFoundError("C++ compiler: none found; install g++ or set CXX")


def build_tensorrt(
    include: Path,
    folder: Path = PACKAGE,
    *,
    cuda: bool = True,
    architectures: Sequence[int] = ARCHITECTURES,
    threads: int = 1,
) -> tuple[Path, Path]:
    """Compile the plugins against TensorRT's headers, with the kernels inside.

    Args:
        include: Folder that holds ``NvInferRuntime.h`` of TensorRT 10.7 to 11.
        folder: Where ``_tensorrt.so`` (for ``--dynamicPlugins``; any of these versions) and
            ``_tensorrt_static.so`` (registers itself when loaded; one major version) go.
        cuda: False takes the emulated kernels, for tests without a GPU.
        architectures: Compute capabilities.
        threads: Architectures compiled at a time.

    Raises:
        FileNotFoundError: without headers or compiler.
        subprocess.CalledProcessError: if it fails.
    """
    if not (include / "NvInferRuntime.h").is_file():
        raise FileNotFoundError(
            f"include: expected a folder with NvInferRuntime.h, got {str(include)!r}; TensorRT's "
            "headers come with its archive or Debian packages, not with pip"
        )
    plugin, registrar = NATIVE / "tensorrt" / "plugin.cc", NATIVE / "tensorrt" / "registrar.cc"
    # Its headers deprecate parts of themselves.
    headers = ["-isystem", str(include)]
    if cuda:
        command = [*_nvcc(architectures, threads), *headers]
    else:
        command = [cxx_compiler(), *_CXX, *headers, *cuda_headers(), "-x", "c++"]
    sources = [KERNELS, plugin]
    return (
        _run([*command, *sources], folder / "_tensorrt.so"),
        _run([*command, *sources, registrar], folder / "_tensorrt_static.so"),
    )


def cuda_headers() -> list[str]:
    """Flags to find ``cuda_runtime_api.h``, which TensorRT's headers include for two names."""
    nvcc = find_nvcc()
    if nvcc is None:
        return []
    # nvcc may be a script that calls the real one.
    listing = subprocess.run(  # noqa: S603
        [nvcc, "--dryrun", "-E", "-x", "cu", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    )
    includes = [line for line in listing.stderr.splitlines() if "INCLUDES=" in line]
    return includes[0].partition("INCLUDES=")[2].replace('"', "").split() if includes else []


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ppool.native.build", description=__doc__)
    parser.add_argument("what", choices=("cuda", "emulated", "tensorrt"))
    parser.add_argument("--include", type=Path, help="folder of TensorRT's headers")
    parser.add_argument("--output", type=Path, help="file (tensorrt: folder) to write")
    parser.add_argument(
        "--architectures", type=int, nargs="+", default=list(ARCHITECTURES), help="such as 80 90"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    output = {} if chosen.output is None else {"output": chosen.output}
    try:
        if chosen.what == "cuda":
            print(build_cuda(**output, architectures=chosen.architectures, threads=chosen.threads))
        elif chosen.what == "emulated":
            print(build_emulated(chosen.output or Path("build") / "_cuda_emulated.so"))
        elif chosen.include is None:
            parser.error("tensorrt needs --include, the folder of TensorRT's headers")
        else:
            folder = chosen.output or PACKAGE
            for path in build_tensorrt(
                chosen.include, folder, architectures=chosen.architectures, threads=chosen.threads
            ):
                print(path)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"ppool.native.build: {error}")


if __name__ == "__main__":
    main()
