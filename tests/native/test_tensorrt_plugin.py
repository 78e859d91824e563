"""The TensorRT plugins, driven by a program that stands in for TensorRT, kernels on the host.

Needs TensorRT's headers, which no package has: PPOOL_TENSORRT_INCLUDE names their folder, or
several of different versions.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ppool.native.build import NATIVE, build_tensorrt, cuda_headers, cxx_compiler
from ppool.reference import alpha_reference, ppool2d_reference, resize_argmax_reference
from ppool.window import Window
from tests.native.entries import stored, wide
from tests.windows import TOLERANCE

FOLDERS = [
    Path(name) for name in os.environ.get("PPOOL_TENSORRT_INCLUDE", "").split(os.pathsep) if name
]
pytestmark = pytest.mark.skipif(
    not FOLDERS, reason="needs TensorRT's headers: set PPOOL_TENSORRT_INCLUDE to their folder"
)

WINDOWS = [
    Window.of(2),
    Window.of(2, ceil_mode=True),
    Window.of(3, 2, 1),
    Window.of(3, 2, 1, ceil_mode=True),
    Window.of((3, 2), (1, 3), (1, 0), (2, 1), True),
]


@dataclass(frozen=True)
class Host:
    """The program and the two libraries."""

    program: Path
    dynamic: Path
    static: Path

    def call(self, library: Path, *arguments: object) -> list[list[str]]:
        """The words of each line that the program prints."""
        command = [str(self.program), str(library), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    def run(
        self, op: str, dtype: str, window: Window, shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        numbers = (*window.kernel, *window.stride, *window.padding, *window.dilation)
        flags = (int(window.ceil_mode), 0, 1)
        lines = self.call(self.dynamic, "run", op, dtype, *numbers, *flags, *shape)
        # It ends with sizes that do not fit, which the plugin refuses and logs.
        lines = [line for line in lines if line[0] != "log"]
        sizes, values = lines
        assert (sizes[0], values[0]) == ("shape", "values")
        return np.array(values[1:], np.float64).reshape([int(size) for size in sizes[1:]])


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.parent.name)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    folder = tmp_path_factory.mktemp("tensorrt")
    libraries = build_tensorrt(request.param, folder, cuda=False)
    program = folder / "host"
    headers = [f"-isystem{request.param}", f"-I{NATIVE}", *cuda_headers()]
    source = Path(__file__).parent / "tensorrt_host.cc"
    # -rdynamic: the plugins find getPluginRegistry in the program, as in libnvinfer.
    command = [cxx_compiler(), "-std=c++17", "-rdynamic", *headers, str(source), "-ldl"]
    subprocess.run([*command, "-Wno-deprecated-declarations", "-o", str(program)], check=True)
    return Host(program, *libraries)


def tensor(index: int, shape: tuple[int, ...], dtype: str) -> NDArray[np.float64]:
    """What the program puts into its inputs."""
    values = (37 * np.arange(np.prod(shape)) + 11 * index) % 101 / np.float32(101)
    return wide(stored(values.reshape(shape), dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_pooling_survives_storing_and_equals_the_reference(
    host: Host, window: Window, dtype: str
) -> None:
    shape = (2, 3, 9, 16)
    pooled = (2, 3, *window.output_size(9, 16))
    y = host.run("PPool", dtype, window, shape)
    x, alpha = tensor(0, shape, dtype), tensor(1, pooled, dtype)
    arguments = (window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode)
    assert np.abs(y - ppool2d_reference(x, alpha, *arguments)).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_unit_equals_the_reference(host: Host, window: Window) -> None:
    shape = (1, 3, 17, 8)
    y = host.run("PPoolUnit", "float32", window, shape)
    sizes = [(3, 1, *window.kernel), (3,), (3,), (3,)]
    inputs = [tensor(k, size, "float32") for k, size in enumerate([shape, *sizes])]
    arguments = (window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode)
    expected = alpha_reference(*inputs, *arguments, alpha_min=0.25)
    assert np.abs(y - ppool2d_reference(inputs[0], expected, *arguments)).max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_labels_are_uint8_of_the_size_asked_for(host: Host, dtype: str) -> None:
    labels = host.run("ResizeArgMax", dtype, Window((13, 21), (1, 1), (0, 0), (1, 1)), (2, 7, 4, 5))
    logits = tensor(0, (2, 7, 4, 5), dtype)
    # Equal values are frequent among the inputs; a rounding may then decide.
    agreement = (labels == resize_argmax_reference(logits, (13, 21))).mean()
    assert labels.shape == (2, 13, 21)
    assert agreement > 0.97


def test_wrong_attributes_are_refused_and_logged(host: Host) -> None:
    logged = [" ".join(line) for line in host.call(host.dynamic, "refuse")]
    assert logged == [
        "log ai.ppool PPool: unknown attribute kernel",
        "log ai.ppool PPool: signed: missing; export the model again",
        "log ai.ppool PPool: pads: expected 0 to half of kernel_shape",
    ]


def test_the_static_library_registers_itself_under_the_nodes_namespace(host: Host) -> None:
    names = ["PPool", "PPoolUnit", "ResizeArgMax"]
    assert host.call(host.static, "registered") == [["ai.ppool", name] for name in names]
    assert host.call(host.dynamic, "registered") == []
