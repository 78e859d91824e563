"""Finding the CUDA kernels, or living without them: PyTorch and ONNX Runtime, no GPU needed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ppool import PPool2d, _gpu, ppool2d
from ppool._jobs import ResizeArgMaxJob
from ppool.native import build
from ppool.reference import ppool2d_backward_reference, ppool2d_reference
from tests.native.entries import needs_library
from tests.native.gpu import emulated_library, needs_compiler
from tests.windows import TOLERANCE

# A library that says it is for a GPU: registering its operators must not disturb a CPU session.
STUB = """
#include "launch.h"
int ppool_cuda_forward(const ppool::ForwardJob*, void*) { return 100; }
int ppool_cuda_unit(const ppool::UnitJob*, void*) { return 100; }
int ppool_cuda_resize_argmax(const ppool::ResizeArgMaxJob*, void*) { return 100; }
int ppool_cuda_backward(const ppool::BackwardJob*, void*) { return 100; }
int ppool_cuda_is_emulated() { return 0; }
const int64_t* ppool_job_sizes() { return ppool::job_sizes(); }
const char* ppool_cuda_error(int) { return "no CUDA-capable device is detected"; }
"""

RUN_ON_THE_CPU = """
import numpy as np
from ppool.window import Window
from tests.native.models import native_session, ppool_model
session = native_session(ppool_model("float32", Window.of(2)))
x, alpha = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
assert (session.run(None, {"x": x, "alpha": alpha})[0] == 1).all()
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Forget what was found, before and after."""
    _gpu.cuda_kernels.cache_clear()
    yield monkeypatch
    _gpu.cuda_kernels.cache_clear()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub.cc").write_text(STUB)
    library = folder / "stub.so"
    include = f"-I{build.NATIVE / 'cuda'}"
    command = ["c++", "-std=c++17", "-fPIC", "-shared", include, str(folder / "stub.cc")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library


@needs_compiler
def test_the_environment_variable_names_a_library(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("PPOOL_CUDA_LIBRARY", str(emulated_library()))
    kernels = _gpu.cuda_kernels()
    assert kernels is not None
    assert kernels.emulated


def test_an_empty_variable_turns_the_kernels_off(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("PPOOL_CUDA_LIBRARY", "")
    assert _gpu.cuda_kernels() is None


def test_a_named_library_that_is_not_there_is_an_error(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("PPOOL_CUDA_LIBRARY", "no/such.so")
    with pytest.raises(ValueError, match=r"PPOOL_CUDA_LIBRARY: expected .* got 'no/such.so'"):
        _gpu.cuda_kernels()


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_pytorch_runs_the_kernels_forward_and_backward(
    fresh: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 9, 8, generator=generator).to(dtype).requires_grad_()
    alpha = (torch.rand(2, 3, 5, 4, generator=generator) * 30).to(dtype).requires_grad_()
    fresh.setenv("PPOOL_CUDA_LIBRARY", str(emulated_library()))
    y = ppool2d(x, alpha, 3, 2, 1)
    y.sum().backward()
    window = (3, 2, 1)
    expected = ppool2d_reference(x.detach().float(), alpha.detach().float(), *window)
    slopes = ppool2d_backward_reference(
        torch.ones_like(alpha).float(), x.detach().float(), alpha.detach().float(), *window
    )
    assert x.grad is not None
    assert alpha.grad is not None
    close = TOLERANCE[str(dtype).removeprefix("torch.")]
    assert np.abs(y.detach().float().numpy() - expected).max() <= close
    assert np.abs(x.grad.float().numpy() - slopes[0]).max() <= 30 * close
    assert np.abs(alpha.grad.float().numpy() - slopes[1]).max() <= close


@needs_compiler
def test_the_unit_of_pytorch_is_one_kernel(fresh: pytest.MonkeyPatch) -> None:
    pool = PPool2d(3, 2, input_scale=1.0, alpha_init=3.0)
    torch.nn.init.normal_(pool.point_weight, generator=torch.Generator().manual_seed(1))
    x = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(2))
    parameters = (pool.region.weight, pool.activation.weight, pool.point_weight, pool.point_bias)
    call = partial(
        torch.ops.ppool.unit, x, *(p.detach() for p in parameters),
        [2, 2], [2, 2], [0, 0], [1, 1], False, False, 1.0, 1e-4, 35.0,
    )  # fmt: skip
    expected = call()
    fresh.setenv("PPOOL_CUDA_LIBRARY", str(emulated_library()))
    _gpu.cuda_kernels.cache_clear()
    assert torch.allclose(call(), expected, atol=2e-5)
    assert not torch.equal(call(), torch.zeros_like(expected))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_pytorch_trains_the_unit_by_kernels(fresh: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    pool = PPool2d(3, 3, 2, 1, input_scale=1.0, alpha_init=5.0)
    torch.nn.init.normal_(pool.point_weight, generator=torch.Generator().manual_seed(1))
    pool = pool.to(dtype)
    x = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    exact = deepcopy(pool).double()
    expected = torch.autograd.grad(exact(x.double()).sum(), list(exact.parameters()))
    fresh.setenv("PPOOL_CUDA_LIBRARY", str(emulated_library()))
    _gpu.cuda_kernels.cache_clear()
    fresh.setattr("ppool._formula.unit_backward", None)
    found = torch.autograd.grad(pool(x).sum(), list(pool.parameters()))
    close = 10 * TOLERANCE[str(dtype).removeprefix("torch.")]
    for gradient, truth in zip(found, expected, strict=True):
        assert gradient.dtype == dtype
        assert (gradient.double() - truth).abs().max() <= close * truth.abs().max()


@needs_compiler
def test_an_error_of_cuda_is_told_in_words(stub: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no CUDA-capable device is detected \(cudaError 100\)"):
        _gpu.Kernels(str(stub)).run(ResizeArgMaxJob(1, 2, 2, 2, 4, 4, "float32", 1, 0, 0))


@needs_library
@needs_compiler
@pytest.mark.parametrize("which", ["stub", "emulated", "missing"])
def test_onnx_runtime_on_the_cpu_is_undisturbed_by(which: str, stub: Path) -> None:
    libraries = {"stub": stub, "emulated": emulated_library(), "missing": Path("no/such.so")}
    environment = os.environ | {"PPOOL_CUDA_LIBRARY": str(libraries[which])}
    subprocess.run([sys.executable, "-c", RUN_ON_THE_CPU], check=True, env=environment)


def test_without_nvcc_the_build_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install the CUDA toolkit"):
        build.build_cuda(tmp_path / "cuda.so")


def test_without_headers_the_plugin_build_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"include: expected .*NvInferRuntime\.h"):
        build.build_tensorrt(tmp_path, tmp_path)


@needs_compiler
def test_the_check_of_a_gpu_runs_without_one() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run"]
    done = subprocess.run(
        [*command, "--library", str(emulated_library())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "against the reference: passed" in done.stdout


def test_no_module_has_the_name_of_a_built_library() -> None:
    # Python would import ppool/_cuda.so in place of a ppool/_cuda.py beside it.
    package = build.PACKAGE
    modules = {path.stem for path in package.glob("*.py")}
    assert not modules & {"_cuda", "_native", "_tensorrt", "_tensorrt_static"}
