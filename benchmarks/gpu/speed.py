"""How fast are the kernels? Beside PyTorch's max pooling, interleaved, against a measured copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.problems import BRANCH, Gpu
from benchmarks.measure import spread
from ppool import PPool2d, _formula, ppool2d
from ppool._jobs import ForwardJob, UnitJob
from ppool.window import Window

__all__ = ["copy_bandwidth", "networks", "operators", "resize_argmax", "training"]

WINDOWS = {"2x2/2": Window.of(2), "3x3/2": Window.of(3, 2, 1), "3x3/1": Window.of(3, 1, 1)}
SHAPES = ((1, 64, 512, 512), (8, 64, 512, 512), (8, 512, 32, 32))
Calls = Mapping[str, Callable[[], object]]


def _timed(contestants: Calls, rounds: int = 30) -> dict[str, dict[str, Any]]:
    """Milliseconds on the GPU, one run of each contestant a round.

    Before each run a buffer larger than the L2 cache is written, or small tensors would be read
    from there.
    """
    flush = torch.empty(2**26, dtype=torch.int32, device="cuda")
    for run in contestants.values():
        for _ in range(3):
            run()
    seen: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            flush.zero_()
            begin.record()
            run()
            end.record()
            seen.setdefault(name, []).append((begin, end))
    torch.cuda.synchronize()
    return {
        name: spread([begin.elapsed_time(end) for begin, end in pairs])
        for name, pairs in seen.items()
    }


def copy_bandwidth() -> dict[str, float]:
    """Bytes a second that a copy of 1 GiB reads and writes, together."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    median = _timed({"copy": lambda: target.copy_(source)})["copy"]["median"]
    return {"milliseconds": median, "GB/s": round(2 * 2**30 / median / 1e6, 1)}


def _composite_unit(x: Tensor, parameters: list[Tensor], window: Window) -> Tensor:
    settings = _formula.Settings(window, False, BRANCH, True, 1.0)
    return _formula.unit(x, tuple(parameters), settings)


def _compiled(x: Tensor, parameters: list[Tensor], window: Window) -> Callable[[], object] | None:
    """``torch.compile`` of the composite; None where it does not work here."""
    compiled = torch.compile(_composite_unit, dynamic=False)
    try:
        compiled(x, parameters, window)
    except Exception as error:  # noqa: BLE001 (a compiler may fail in any way)
        print(f"    torch.compile failed: {type(error).__name__}")
        return None
    return lambda: compiled(x, parameters, window)


def _row(timings: dict[str, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    row = facts | {"milliseconds": timings}
    mine = timings["unit"]["median"] if "unit" in timings else timings["PPool"]["median"]
    row["ratio to max_pool2d"] = round(mine / timings["max_pool2d"]["median"], 3)
    return row


def _parameters(x: Tensor, window: Window) -> list[Tensor]:
    c = x.shape[1]
    return [
        torch.randn((c, 1, *window.kernel), device="cuda").to(x.dtype),
        torch.full((c,), 0.25, device="cuda").to(x.dtype),
        torch.randn(c, device="cuda").to(x.dtype),
        torch.full((c,), 5.0, device="cuda").to(x.dtype),
    ]


def _forward_row(gpu: Gpu, x: Tensor, name: str, *, portable: bool) -> dict[str, Any]:
    window = WINDOWS[name]
    parameters = _parameters(x, window)
    pooled = (*x.shape[:2], *window.output_size(x.shape[2], x.shape[3]))
    y, alpha = x.new_empty(pooled), torch.full(pooled, 5.0, device="cuda").to(x.dtype)
    pooling = gpu.pooling(x, window)
    predicted = [t.data_ptr() for t in (x, *parameters, y)]
    given = [t.data_ptr() for t in (x, alpha, y)]
    calls: dict[str, Callable[[], object]] = {
        "unit": partial(gpu.kernels.run, UnitJob(pooling, BRANCH, *predicted), gpu.stream),
        "PPool": partial(gpu.kernels.run, ForwardJob(pooling, *given), gpu.stream),
        "max_pool2d": partial(F.max_pool2d, x, window.kernel, window.stride, window.padding),
    }
    if portable:
        calls["composite"] = partial(_composite_unit, x, parameters, window)
        compiled = _compiled(x, parameters, window) if name == "2x2/2" else None
        calls |= {"compiled composite": compiled} if compiled else {}
    timings = _timed(calls)
    row = _row(timings, shape=tuple(x.shape), dtype=str(x.dtype), window=name)
    moved = (x.numel() + y.numel()) * x.element_size()
    return row | {"unit GB/s": round(moved / timings["unit"]["median"] / 1e6, 1)}


def operators(gpu: Gpu, bandwidth: float) -> list[dict[str, Any]]:
    """The fused unit, forward, for each size, element type and window.

    Args:
        gpu: The kernels.
        bandwidth: GB/s of a copy; the unit's share of it counts x once and y once.
    """
    rows = []
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x = torch.rand(shape, device="cuda").to(dtype)
            portable = shape == SHAPES[0] and dtype != torch.bfloat16
            for name in WINDOWS:
                row = _forward_row(gpu, x, name, portable=portable)
                row["share of copy bandwidth"] = round(row["unit GB/s"] / bandwidth, 3)
                rows.append(row)
    return rows


def _both_ways(call: Callable[[], Tensor], grad: Tensor, inputs: list[Tensor]) -> None:
    for tensor in inputs:
        tensor.grad = None
    call().backward(grad)  # type: ignore[no-untyped-call]


def training() -> list[dict[str, Any]]:
    """Forward and backward through autograd, exponents given, and of the whole module."""
    rows = []
    for dtype in (torch.float32, torch.float16):
        for name, window in WINDOWS.items():
            shape = SHAPES[1]
            x = torch.rand(shape, device="cuda").to(dtype).requires_grad_()
            pooled = (*shape[:2], *window.output_size(shape[2], shape[3]))
            alpha = torch.full(pooled, 5.0, device="cuda").to(dtype).requires_grad_()
            grad = torch.rand(pooled, device="cuda").to(dtype)
            w = (window.kernel, window.stride, window.padding)
            module = PPool2d(shape[1], *w).to("cuda", dtype)

            forwards: dict[str, Callable[[], Tensor]] = {
                "PPool": partial(ppool2d, x, alpha, *w),
                "PPool2d": partial(module, x),
                "max_pool2d": partial(F.max_pool2d, x, *w),
            }
            leaves = [x, alpha, *module.parameters()]
            calls = {key: partial(_both_ways, f, grad, leaves) for key, f in forwards.items()}
            timings = _timed(calls, rounds=15)
            row = _row(timings, shape=shape, dtype=str(dtype), window=name)
            module_ratio = timings["PPool2d"]["median"] / timings["max_pool2d"]["median"]
            rows.append(row | {"PPool2d to max_pool2d": round(module_ratio, 3)})
    return rows


def resize_argmax(gpu: Gpu) -> dict[str, Any]:
    """150 classes, 32x32 to 512x512, beside interpolate and argmax."""
    logits = torch.randn((1, 150, 32, 32), device="cuda")
    size = (512, 512)

    def theirs() -> Tensor:
        return F.interpolate(logits, size, mode="bilinear").argmax(1).to(torch.uint8)

    timings = _timed({"fused": lambda: gpu.resize_argmax(logits, size), "PyTorch": theirs})
    ratio = timings["PyTorch"]["median"] / timings["fused"]["median"]
    return {"milliseconds": timings, "times faster": round(ratio, 2)}


def networks() -> list[dict[str, Any]]:
    """VGG-16 at 512x512 with P-pooling beside its twin with max pooling, without gradients.

    Called as usual, where for one image the GPU waits for Python, and replayed as a CUDA graph,
    which leaves the GPU's own time.
    """
    from ppool.models import create_model

    rows = []
    for dtype in (torch.float32, torch.float16):
        twins = {
            pooling: create_model("vgg16", pooling=pooling).eval().to("cuda", dtype)
            for pooling in ("ppool", "max")
        }
        for batch in (1, 8):
            x = torch.rand((batch, 3, 512, 512), device="cuda").to(dtype)
            calls: dict[str, Callable[[], object]]
            calls = {name: partial(twin, x) for name, twin in twins.items()}
            with torch.inference_mode():
                graphs = {f"{name}, graph": _graph(call) for name, call in calls.items()}
                timings = _timed(calls | graphs, rounds=20)
            medians = {name: timing["median"] for name, timing in timings.items()}
            rows.append(
                {
                    "network": f"vgg16 [{batch}, 3, 512, 512]",
                    "dtype": str(dtype),
                    "milliseconds": timings,
                    "ratio": round(medians["ppool"] / medians["max"], 3),
                    "ratio of graphs": round(medians["ppool, graph"] / medians["max, graph"], 3),
                }
            )
    return rows


def _graph(call: Callable[[], object]) -> Callable[[], object]:
    """The call's kernels, started at once."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
